#include "prepare.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "check.hpp"
#include "filter.hpp"
#include "kernels.hpp"
#include "leads.hpp"
#include "resample.hpp"
#include "scale.hpp"

namespace pqrst {
namespace {

const std::vector<std::int64_t> no_centers;
constexpr double notch_quality = 30;  // width at -3 dB: a thirtieth of the frequency

// [start, stop) in samples of the record
struct Span {
  std::ptrdiff_t start, stop;
};

// One slot's signal on its way to rows.
struct Lead {
  std::size_t source = 0;      // which lead of the record
  const float* raw = nullptr;  // as read; nullptr: no lead of the record fills the slot
  double* values = nullptr;    // bridged, filtered, at the recipe's rate; nullptr: no sample is valid
  std::vector<Span> gaps;      // the invalid samples
};

enum Use : std::uint8_t { missing = 0, flat, usable };

struct StageError : std::invalid_argument {
  std::string stage;
  StageError(std::string stage_name, const std::string& text)
      : std::invalid_argument(text), stage(std::move(stage_name)) {}
};

std::string joined(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

std::string slots_text(const std::vector<std::vector<std::string>>& slots) {
  std::vector<std::string> texts;
  for (const auto& slot : slots) texts.push_back(joined(slot, "|"));
  return joined(texts, ", ");
}

// Invalid samples become a line between their neighbours, at the ends the nearest value; returns where they were.
std::vector<Span> bridge_gaps(double* x, std::ptrdiff_t n) {
  std::vector<Span> gaps;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    if (std::isfinite(x[i])) continue;
    const std::ptrdiff_t start = i;
    while (i < n && !std::isfinite(x[i])) ++i;
    gaps.push_back({start, i});
    if (start == 0 && i == n) break;
    const double left = start > 0 ? x[start - 1] : x[i], right = i < n ? x[i] : x[start - 1];
    const auto steps = static_cast<double>(i - start + 1);
    for (std::ptrdiff_t k = start; k < i; ++k)
      x[k] = left + (right - left) * (static_cast<double>(k - start + 1) / steps);
  }
  return gaps;
}

// Where a row begins that is a record or a window.
struct Start {
  std::int64_t row, record;  // at the recipe's rate, at the record's
};

// Row i of `count` in a record of n samples at the recipe's rate.
Start start_of(std::ptrdiff_t i, std::ptrdiff_t count, std::ptrdiff_t n, const Recipe& recipe, Ratio ratio) {
  std::int64_t row = i * (recipe.length - recipe.overlap);
  if (recipe.kind == Recipe::Kind::whole) row = count > 1 ? i * (n - recipe.length) / (count - 1) : 0;
  return {row, floor_div(row * ratio.down, ratio.up)};
}

// The part of a record's samples that a row's valid samples cover.
Span at_record_rate(std::int64_t first, std::int64_t last, Ratio ratio, std::ptrdiff_t n_samples) {
  const std::int64_t start = first * ratio.down / ratio.up;
  const std::int64_t stop = (last * ratio.down + ratio.up - 1) / ratio.up;
  return {std::min<std::ptrdiff_t>(start, n_samples - 1),
          std::min<std::ptrdiff_t>(std::max(stop, start + 1), n_samples)};
}

// Whether the valid samples, of which there is one at least, are all the same.
bool is_flat(const float* begin, const float* end) {
  const auto finite = [](float value) { return std::isfinite(value); };
  const float* const first = std::find_if(begin, end, finite);
  return first != end && std::all_of(first, end, [&](float value) { return value == *first || !finite(value); });
}

// What a lead is good for in this part of the record: its gaps can make it missing, and one that never changes there is
// flat (its filtered values are but the echo of what lies around, which scaling would blow up).
Use use_of(const Lead& lead, Span part, const Recipe& recipe, double fs) {
  if (!lead.raw || !lead.values) return missing;
  std::ptrdiff_t invalid = 0;
  for (const Span& gap : lead.gaps) {
    const std::ptrdiff_t overlap = std::min(gap.stop, part.stop) - std::max(gap.start, part.start);
    if (overlap <= 0) continue;
    if (static_cast<double>(gap.stop - gap.start) > recipe.max_gap_s * fs) return missing;
    invalid += overlap;
  }
  if (static_cast<double>(invalid) > recipe.max_gap_fraction * static_cast<double>(part.stop - part.start))
    return missing;
  return part.stop - part.start > 1 && is_flat(lead.raw + part.start, lead.raw + part.stop) ? flat : usable;
}

// What a thread keeps from record to record: filters that depend on the recipe and the record's rate alone, and room to
// work in.
struct Worker {
  double fs = 0;
  Ratio ratio{0, 0};
  std::optional<Cascade> bandpass, notch;
  std::shared_ptr<const Resampler<double>> resampler;
  Scratch room, filtered, resampled, joined;
  Record record;  // the last one read, or turned

  void design(const Recipe& recipe, double record_fs, std::ptrdiff_t n_samples) {
    const Ratio wanted = rate_ratio(record_fs, recipe.fs, n_samples);
    if (record_fs == fs && wanted.up == ratio.up && wanted.down == ratio.down) return;
    fs = 0;  // stays undesigned if anything below throws
    bandpass.reset();
    notch.reset();
    if (recipe.bandpass)
      bandpass =
          butterworth_bandpass(recipe.bandpass->order, recipe.bandpass->low_hz, recipe.bandpass->high_hz, record_fs);
    if (recipe.notch_hz) notch = notch_section(*recipe.notch_hz, notch_quality, record_fs);
    ratio = wanted;
    resampler = resampler_for<double>(ratio);
    fs = record_fs;
  }
};

// The record with all leads as they are usually recorded: `-aVR` is aVR, multiplied by -1.
const Record& upright(const Record& record, Worker& worker) {
  if (std::none_of(record.leads.begin(), record.leads.end(), is_negated)) return record;
  if (&record != &worker.record) worker.record = record;
  Record& turned = worker.record;
  for (std::size_t lead = 0; lead < turned.leads.size(); ++lead) {
    std::string& name = turned.leads[lead];
    if (!is_negated(name)) continue;
    const std::string as_recorded = name;
    name.erase(name.find('-'), 1);
    turned.warnings.push_back(turned.name + ": lead " + as_recorded + " is " + name + " with its sign turned back");
    float* const values = turned.signal.row(static_cast<std::ptrdiff_t>(lead));
    std::transform(values, values + turned.signal.cols, values, [](float value) { return -value; });
  }
  return turned;
}

// The leads that fill the slots, as read.
std::vector<Lead> leads_of(const Record& record, const Recipe& recipe) {
  if (record.signal.rows == 0) throw StageError("leads", record.name + ": has no leads");
  if (record.signal.cols == 0) throw StageError("read", record.name + ": has no samples");
  const auto slots = match_leads(recipe.leads, record.leads);
  const bool none = std::all_of(slots.begin(), slots.end(), [](std::ptrdiff_t s) { return s < 0; });
  const bool lacking = std::any_of(slots.begin(), slots.end(), [](std::ptrdiff_t s) { return s < 0; });
  if (none || (lacking && recipe.missing_is_error))
    throw StageError("leads", record.name + ": has leads " + joined(record.leads, ", ") +
                                  "; the recipe's slots accept " + slots_text(recipe.leads));
  std::vector<Lead> leads(slots.size());
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (slots[slot] < 0) continue;
    const auto source = static_cast<std::size_t>(slots[slot]);
    if (record.units[source] != "mV")
      throw StageError("leads",
                       record.name + ": lead " + record.leads[source] + " is in " + record.units[source] + ", not mV");
    leads[slot].source = source;
    leads[slot].raw = record.signal.row(slots[slot]);
  }
  return leads;
}

// Takes the slots' leads out of the record, bridges their gaps and brings them to the recipe's rate.
std::vector<Lead> condition(const Record& record, const Recipe& recipe, Worker& worker, Rows& rows,
                            std::ptrdiff_t record_index) {
  std::vector<Lead> leads = leads_of(record, recipe);
  try {
    worker.design(recipe, record.fs, record.signal.cols);
  } catch (const std::invalid_argument& e) {
    throw StageError("filter", record.name + ": " + e.what());
  }
  const std::ptrdiff_t n = record.signal.cols;
  const auto slots = static_cast<std::ptrdiff_t>(leads.size());
  double* const filtered = worker.filtered.get(static_cast<std::size_t>(checked_product("record", slots, n)));
  std::vector<const float*> whole;             // leads without gaps go through the filter as they were read
  std::vector<double*> from_whole, in_double;  // where those go, and the others
  for (std::ptrdiff_t slot = 0; slot < slots; ++slot) {
    Lead& lead = leads[static_cast<std::size_t>(slot)];
    if (!lead.raw) continue;
    const Extent extent = detail::extent(lead.raw, n);
    if (extent.finite ? extent.low == extent.high : is_flat(lead.raw, lead.raw + n)) {
      const std::string& name = record.leads[lead.source];
      rows.warnings.push_back({record_index, "leads", record.name + ": lead " + name + " is flat"});
    }
    lead.values = filtered + slot * n;
    if (extent.finite && worker.bandpass) {
      whole.push_back(lead.raw);
      from_whole.push_back(lead.values);
      continue;
    }
    std::copy(lead.raw, lead.raw + n, lead.values);
    if (!extent.finite) lead.gaps = bridge_gaps(lead.values, n);
    if (!lead.gaps.empty() && lead.gaps[0].stop - lead.gaps[0].start == n)
      lead.values = nullptr;
    else
      in_double.push_back(lead.values);
  }
  const auto in_place = [&](const Cascade& cascade, const std::vector<double*>& some) {
    const std::vector<const double*> in(some.begin(), some.end());
    filter(cascade, in.data(), some.data(), static_cast<std::ptrdiff_t>(some.size()), n, worker.room);
  };
  try {
    if (worker.bandpass) {
      filter(*worker.bandpass, whole.data(), from_whole.data(), static_cast<std::ptrdiff_t>(whole.size()), n,
             worker.room);
      in_place(*worker.bandpass, in_double);
    }
    if (worker.notch) {
      in_place(*worker.notch, from_whole);
      in_place(*worker.notch, in_double);
    }
  } catch (const std::invalid_argument& e) {
    throw StageError("filter", record.name + ": " + e.what());
  }
  if (worker.resampler->is_copy()) return leads;
  const std::ptrdiff_t n_out = worker.resampler->output_length(n);
  double* out = worker.resampled.get(static_cast<std::size_t>(checked_product("record", slots, n_out)));
  for (Lead& lead : leads) {
    if (!lead.values) continue;
    worker.resampler->apply(lead.values, n, out, worker.room);
    lead.values = out;
    out += n_out;
  }
  return leads;
}

Scaling scaling_of(const double* x, std::ptrdiff_t n, const Recipe& recipe) {
  return recipe.scale == Recipe::Scale::zscore ? zscore_of(x, n) : minmax_of(x, n);
}

// Samples [from, from + n) of the slots in use, scaled, into columns [column, column + n) of `row`.
template <class Out>
void scale_row(const std::vector<Lead>& leads, const std::vector<Use>& use, std::ptrdiff_t from, std::ptrdiff_t n,
               const Recipe& recipe, Worker& worker, Out* row, std::ptrdiff_t column) {
  const auto each = [&](auto&& act) {
    for (std::size_t slot = 0; slot < leads.size(); ++slot)
      if (use[slot] == usable) act(slot, leads[slot].values + from);
  };
  const auto put = [&](std::size_t slot, const double* x, const Scaling& scaling) {
    detail::scale(x, n, scaling, row + static_cast<std::ptrdiff_t>(slot) * recipe.length + column);
  };
  if (recipe.scale == Recipe::Scale::none) {
    each([&](std::size_t slot, const double* x) { put(slot, x, unchanged); });
  } else if (recipe.over == Recipe::Over::lead) {
    each([&](std::size_t slot, const double* x) { put(slot, x, scaling_of(x, n, recipe)); });
  } else if (recipe.over == Recipe::Over::dataset) {
    each([&](std::size_t slot, const double* x) {
      put(slot, x, {1, recipe.center[slot], recipe.spread[slot], 0, true});
    });
  } else {
    double* const joined = worker.joined.get(leads.size() * static_cast<std::size_t>(n));
    double* end = joined;
    each([&](std::size_t, const double* x) { end = std::copy(x, x + n, end); });
    if (end == joined) return;
    const Scaling scaling = scaling_of(joined, end - joined, recipe);
    each([&](std::size_t slot, const double* x) { put(slot, x, scaling); });
  }
}

// Whether no value is infinite or NaN, that is, has all bits of its exponent set. Without a branch the compiler takes
// many values at a time (60,000 of float16: 18 -> 3 us).
bool all_finite(const Half* row, std::size_t n) {
  std::uint16_t bad = 0;
  for (std::size_t i = 0; i < n; ++i) bad |= static_cast<std::uint16_t>((row[i].bits & 0x7c00u) == 0x7c00u);
  return bad == 0;
}
bool all_finite(const float* row, std::size_t n) {
  std::uint32_t bad = 0, bits;
  for (std::size_t i = 0; i < n; ++i) {
    std::memcpy(&bits, row + i, sizeof bits);
    bad |= static_cast<std::uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

std::size_t row_bytes(const Recipe& recipe) {
  const std::ptrdiff_t values =
      checked_product("recipe", static_cast<std::ptrdiff_t>(recipe.leads.size()), recipe.length);
  return static_cast<std::size_t>(checked_product("recipe", values, recipe.half ? 2 : 4));
}

// `table`: room for `most` rows.
Rows rows_of(const Record& as_read, const Recipe& recipe, const std::vector<std::int64_t>& centers, Worker& worker,
             std::ptrdiff_t record_index, std::byte* table, std::ptrdiff_t most) {
  const Record& record = upright(as_read, worker);
  Rows rows;
  for (const auto& text : record.warnings) rows.warnings.push_back({record_index, "read", text});
  for (auto& doubt : plausibility(record)) rows.warnings.push_back({record_index, doubt.stage, doubt.reason});
  if (recipe.kind == Recipe::Kind::beat) {
    const auto window =
        static_cast<std::int64_t>(std::ceil(static_cast<double>(recipe.length) * record.fs / recipe.fs));
    for (std::int64_t c : centers)
      if (c < -window || c >= record.signal.cols + window)
        throw StageError("rows", record.name + ": centre " + std::to_string(c) +
                                     " is more than a window outside the signal of " +
                                     std::to_string(record.signal.cols) + " samples");
  }
  const std::vector<Lead> leads = condition(record, recipe, worker, rows, record_index);
  const Ratio ratio = worker.ratio;
  const std::ptrdiff_t n_samples = resampled_length(record.signal.cols, ratio.up, ratio.down);
  const auto n_slots = static_cast<std::ptrdiff_t>(leads.size());
  const std::ptrdiff_t count =
      n_rows(recipe, record.signal.cols, record.fs, static_cast<std::ptrdiff_t>(centers.size()));
  const std::size_t bytes = row_bytes(recipe);
  if (count > most) throw StageError("rows", record.name + ": is longer than a moment ago, when its header was read");

  std::vector<Use> use(static_cast<std::size_t>(n_slots));
  std::ptrdiff_t dropped = 0, overflowed = 0;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    auto [start, place] = start_of(i, count, n_samples, recipe, ratio);
    if (recipe.kind == Recipe::Kind::beat) {
      place = centers[static_cast<std::size_t>(i)];
      start = floor_div(2 * place * ratio.up + ratio.down, 2 * ratio.down) - recipe.before;
    }
    const auto first = static_cast<std::ptrdiff_t>(std::max<std::int64_t>(0, -start));
    const auto last = static_cast<std::ptrdiff_t>(std::min<std::int64_t>(recipe.length, n_samples - start));
    const Span part = at_record_rate(start + first, start + last, ratio, record.signal.cols);
    bool any = false, all = true;
    for (std::ptrdiff_t slot = 0; slot < n_slots; ++slot) {
      const Use here = last > first ? use_of(leads[static_cast<std::size_t>(slot)], part, recipe, record.fs) : missing;
      use[static_cast<std::size_t>(slot)] = here;
      any = any || here != missing;
      all = all && here != missing;
    }
    if (!any || (!all && recipe.missing_is_error)) {
      ++dropped;
      continue;
    }
    std::byte* const row = table + rows.index.size() * bytes;
    const bool whole = first == 0 && last == recipe.length &&
                       std::all_of(use.begin(), use.end(), [](Use here) { return here == usable; });
    if (!whole) std::fill(row, row + bytes, std::byte{0});
    if (recipe.half)
      scale_row(leads, use, start + first, last - first, recipe, worker, reinterpret_cast<Half*>(row), first);
    else
      scale_row(leads, use, start + first, last - first, recipe, worker, reinterpret_cast<float*>(row), first);
    if (!(recipe.half ? all_finite(reinterpret_cast<Half*>(row), bytes / 2)
                      : all_finite(reinterpret_cast<float*>(row), bytes / 4))) {
      ++overflowed;
      continue;
    }
    rows.index.push_back(i);
    rows.start.push_back(place);
    rows.valid.push_back(first);
    rows.valid.push_back(last);
    for (Use here : use) rows.lead_mask.push_back(here != missing);
  }
  if (dropped > 0)
    rows.errors.push_back({record_index, "rows",
                           record.name + ": " + std::to_string(dropped) + " of " + std::to_string(count) +
                               " rows dropped: too many invalid samples in a lead that the recipe needs"});
  if (overflowed > 0)
    rows.errors.push_back({record_index, "rows",
                           record.name + ": " + std::to_string(overflowed) + " of " + std::to_string(count) +
                               " rows dropped: values that " + (recipe.half ? "float16" : "float32") + " cannot hold"});
  return rows;
}

// Rows of an input before any is dropped; 0 where it cannot be read or resampled. A header that tells is kept.
std::ptrdiff_t most_rows(const Input& input, const Recipe& recipe, std::size_t n_centers,
                         std::optional<Header>& header) {
  const auto centers = static_cast<std::ptrdiff_t>(n_centers);
  try {
    if (input.record) return n_rows(recipe, input.record->signal.cols, input.record->fs, centers);
    if (recipe.kind == Recipe::Kind::record || recipe.kind == Recipe::Kind::beat)
      return n_rows(recipe, 1, recipe.fs, centers);  // whatever the length
    header = parse_header(header_path(input.path));
    const RecordLength length = read_length(*header);
    return n_rows(recipe, length.n_samples, length.fs, centers);
  } catch (const std::exception&) {  // preparing it will say why
    return 0;
  }
}

// Threads that are joined whatever happens.
struct Threads {
  std::vector<std::thread> all;
  ~Threads() {
    for (auto& thread : all) thread.join();
  }
};

// `work(i)` for every i below n, on so many threads, of which this is one; on fewer where the system gives no more.
// `work` throws nothing.
template <class Work>
void in_parallel(std::size_t n, int n_threads, Work make_work) {
  constexpr std::size_t most = 256;
  const std::size_t wanted = std::min({static_cast<std::size_t>(n_threads), n, most});
  std::atomic<std::size_t> next{0};
  const auto run = [&] {
    auto work = make_work();
    for (std::size_t i; (i = next++) < n;) work(i);
  };
  Threads threads;
  threads.all.reserve(wanted);
  try {
    while (threads.all.size() + 1 < wanted) threads.all.emplace_back(run);
  } catch (const std::system_error&) {  // those that have started do the work
  }
  run();
}

}  // namespace

std::ptrdiff_t n_rows(const Recipe& recipe, std::ptrdiff_t n_samples, double fs, std::ptrdiff_t n_centers) {
  if (n_samples < 1) return 0;
  if (recipe.kind == Recipe::Kind::record) return 1;
  if (recipe.kind == Recipe::Kind::beat) return n_centers;
  const Ratio ratio = rate_ratio(fs, recipe.fs, n_samples);
  const std::ptrdiff_t n = resampled_length(n_samples, ratio.up, ratio.down), hop = recipe.length - recipe.overlap;
  if (recipe.kind == Recipe::Kind::whole) return (n + recipe.length - 1) / recipe.length;
  return n <= recipe.length ? 1 : (n - recipe.overlap + hop - 1) / hop;  // the last window holds the rest, padded
}

std::vector<std::int64_t> row_starts(const Recipe& recipe, std::ptrdiff_t n_samples, double fs) {
  if (recipe.kind == Recipe::Kind::beat)
    throw std::invalid_argument("recipe.window.kind beat: the centres of beats say where their rows lie");
  const Ratio ratio = rate_ratio(fs, recipe.fs, n_samples);
  std::vector<std::int64_t> starts;
  const std::ptrdiff_t count = n_rows(recipe, n_samples, fs, 0), n = resampled_length(n_samples, ratio.up, ratio.down);
  for (std::ptrdiff_t i = 0; i < count; ++i) starts.push_back(start_of(i, count, n, recipe, ratio).record);
  return starts;
}

std::vector<Rows> prepare(const std::vector<Input>& inputs, const Recipe& recipe,
                          const std::vector<std::vector<std::int64_t>>& centers, int n_threads, bool skip_errors,
                          const std::function<std::byte*(std::ptrdiff_t)>& room_for) {
  check(recipe);
  if (recipe.kind == Recipe::Kind::beat && centers.size() != inputs.size())
    throw std::invalid_argument("centers: beat rows need one array of R peaks per record");
  const auto centers_of = [&](std::size_t i) -> const std::vector<std::int64_t>& {
    return recipe.kind == Recipe::Kind::beat ? centers[i] : no_centers;
  };
  std::vector<std::ptrdiff_t> place{0};  // of each input's first row
  std::vector<std::optional<Header>> headers(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i)
    place.push_back(place.back() + most_rows(inputs[i], recipe, centers_of(i).size(), headers[i]));
  const std::size_t bytes = row_bytes(recipe);
  checked_product("rows", place.back(), static_cast<std::ptrdiff_t>(bytes));
  std::byte* const table = room_for(place.back());
  const auto row = [&](std::ptrdiff_t i) { return table + static_cast<std::size_t>(i) * bytes; };

  std::vector<Rows> all(inputs.size());
  std::vector<std::exception_ptr> failures(inputs.size());
  in_parallel(inputs.size(), n_threads, [&] {
    return [&, worker = Worker{}](std::size_t i) mutable {
      const auto index = static_cast<std::ptrdiff_t>(i);
      const auto list = [&](const std::string& stage, const char* reason) {
        failures[i] = std::current_exception();
        all[i] = Rows{};
        all[i].errors.push_back({index, stage, reason});
      };
      try {
        if (!inputs[i].record) {
          if (!headers[i]) headers[i] = parse_header(header_path(inputs[i].path));
          read_record(inputs[i].path, *std::exchange(headers[i], {}), {}, worker.record);
        }
        const Record& record = inputs[i].record ? *inputs[i].record : worker.record;
        all[i] = rows_of(record, recipe, centers_of(i), worker, index, row(place[i]), place[i + 1] - place[i]);
      } catch (const StageError& e) {
        list(e.stage, e.what());
      } catch (const std::exception& e) {
        list("read", e.what());
      }
    };
  });
  if (!skip_errors)
    for (const auto& failure : failures)
      if (failure) std::rethrow_exception(failure);

  std::ptrdiff_t n = 0;  // rows that were dropped leave no hole
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto here = static_cast<std::ptrdiff_t>(all[i].index.size());
    if (n != place[i]) std::memmove(row(n), row(place[i]), static_cast<std::size_t>(here) * bytes);
    n += here;
  }
  return all;
}

}  // namespace pqrst
