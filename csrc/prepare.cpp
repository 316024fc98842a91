#include "prepare.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <optional>
#include <thread>

#include "filter.hpp"
#include "half.hpp"
#include "resample.hpp"
#include "scale.hpp"

namespace pqrst {
namespace {

constexpr double notch_quality = 30;  // width at -3 dB: a thirtieth of the frequency

// [start, stop) in samples of the record
struct Span {
  std::ptrdiff_t start, stop;
};

// One slot's signal on its way to rows.
struct Lead {
  const float* raw = nullptr;  // as read; nullptr: no lead of the record fills the slot
  std::vector<double> values;  // bridged, filtered, at the recipe's rate
  std::vector<Span> gaps;      // the invalid samples
};

enum Use : std::uint8_t { missing = 0, flat, usable };

struct StageError : std::invalid_argument {
  std::string stage;
  StageError(std::string stage_name, const std::string& text)
      : std::invalid_argument(text), stage(std::move(stage_name)) {}
};

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

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
std::vector<Span> bridge_gaps(std::vector<double>& x) {
  const auto n = static_cast<std::ptrdiff_t>(x.size());
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

// The part of a record's samples that a row's valid samples cover.
Span at_record_rate(std::int64_t first, std::int64_t last, Ratio ratio, std::ptrdiff_t n_samples) {
  const std::int64_t start = first * ratio.down / ratio.up;
  const std::int64_t stop = (last * ratio.down + ratio.up - 1) / ratio.up;
  return {std::min<std::ptrdiff_t>(start, n_samples - 1),
          std::min<std::ptrdiff_t>(std::max(stop, start + 1), n_samples)};
}

// What a lead is good for in this part of the record: its gaps can make it missing, and one that never changes there is
// flat (its filtered values are but the echo of what lies around, which scaling would blow up).
Use use_of(const Lead& lead, Span part, const Recipe& recipe, double fs) {
  if (!lead.raw || lead.values.empty()) return missing;
  std::ptrdiff_t invalid = 0;
  for (const Span& gap : lead.gaps) {
    const std::ptrdiff_t overlap = std::min(gap.stop, part.stop) - std::max(gap.start, part.start);
    if (overlap <= 0) continue;
    if (static_cast<double>(gap.stop - gap.start) > recipe.max_gap_s * fs) return missing;
    invalid += overlap;
  }
  if (static_cast<double>(invalid) > recipe.max_gap_fraction * static_cast<double>(part.stop - part.start))
    return missing;
  const float* begin = lead.raw + part.start;
  const float* end = lead.raw + part.stop;
  const bool same =
      part.stop - part.start > 1 && std::all_of(begin, end, [begin](float value) { return value == *begin; });
  return same ? flat : usable;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

// Filters that depend on the recipe and the record's rate alone; designed once per rate and thread.
struct Filters {
  double fs = 0;
  Ratio ratio{1, 1};
  std::optional<ZeroPhaseFilter> bandpass, notch;
  std::optional<Resampler<double>> resampler;

  void design(const Recipe& recipe, double record_fs) {
    if (record_fs == fs) return;
    fs = 0;  // stays undesigned if anything below throws
    bandpass.reset();
    notch.reset();
    resampler.reset();
    if (recipe.bandpass)
      bandpass.emplace(
          butterworth_bandpass(recipe.bandpass->order, recipe.bandpass->low_hz, recipe.bandpass->high_hz, record_fs));
    if (recipe.notch_hz) notch.emplace(std::vector<Section>{notch_section(*recipe.notch_hz, notch_quality, record_fs)});
    ratio = rate_ratio(record_fs, recipe.fs);
    resampler.emplace(ratio);
    fs = record_fs;
  }
};

// Takes the slots' leads out of the record, bridges their gaps and brings them to the recipe's rate.
std::vector<Lead> condition(const Record& record, const Recipe& recipe, Filters& filters, Rows& rows,
                            std::ptrdiff_t record_index) {
  if (record.signal.rows == 0) throw StageError("leads", record.name + ": has no leads");
  if (record.signal.cols == 0) throw StageError("read", record.name + ": has no samples");
  const auto slots = match_leads(recipe.leads, record.leads);
  const bool none = std::all_of(slots.begin(), slots.end(), [](std::ptrdiff_t s) { return s < 0; });
  const bool lacking = std::any_of(slots.begin(), slots.end(), [](std::ptrdiff_t s) { return s < 0; });
  if (none || (lacking && recipe.missing_is_error))
    throw StageError("leads", record.name + ": has leads " + joined(record.leads, ", ") +
                                  "; the recipe's slots accept " + slots_text(recipe.leads));
  try {
    filters.design(recipe, record.fs);
  } catch (const std::invalid_argument& e) {
    throw StageError("filter", record.name + ": " + e.what());
  }
  std::vector<Lead> leads(slots.size());
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (slots[slot] < 0) continue;
    const auto source = static_cast<std::size_t>(slots[slot]);
    if (record.units[source] != "mV")
      throw StageError("leads",
                       record.name + ": lead " + record.leads[source] + " is in " + record.units[source] + ", not mV");
    Lead& lead = leads[slot];
    lead.raw = record.signal.row(slots[slot]);
    const float* end = lead.raw + record.signal.cols;
    if (std::all_of(lead.raw, end, [&lead](float value) { return value == *lead.raw; }))
      rows.warnings.push_back({record_index, "leads", record.name + ": lead " + record.leads[source] + " is flat"});
    lead.values.assign(lead.raw, end);
    lead.gaps = bridge_gaps(lead.values);
    if (!lead.gaps.empty() && lead.gaps[0].stop - lead.gaps[0].start == record.signal.cols) {
      lead.values.clear();
      continue;
    }
    const View<double> in{lead.values.data(), 1, record.signal.cols};
    const View<const double> in_const{in.data, in.rows, in.cols};
    try {
      if (filters.bandpass) filters.bandpass->apply(in_const, in);
      if (filters.notch) filters.notch->apply(in_const, in);
    } catch (const std::invalid_argument& e) {
      throw StageError("filter", record.name + ": " + e.what());
    }
    if (filters.ratio.up != filters.ratio.down) {
      const std::ptrdiff_t n = resampled_length(in.cols, filters.ratio.up, filters.ratio.down);
      std::vector<double> resampled(static_cast<std::size_t>(n));
      filters.resampler->apply(in_const, View<double>{resampled.data(), 1, n});
      lead.values = std::move(resampled);
    }
  }
  return leads;
}

// Scales the valid samples of one row in place; row: (L, length) with `use` per slot.
void scale_row(View<double> row, std::ptrdiff_t first, std::ptrdiff_t last, const std::vector<Use>& use,
               const Recipe& recipe, std::vector<double>& scratch) {
  if (recipe.scale == Recipe::Scale::none) return;
  const std::ptrdiff_t n = last - first;
  const auto scale = [&](View<double> x) {
    const View<const double> in{x.data, x.rows, x.cols};
    if (recipe.scale == Recipe::Scale::zscore)
      zscore<double>(in, x);
    else
      minmax<double>(in, x);
  };
  if (recipe.over == Recipe::Over::lead) {
    for (std::ptrdiff_t slot = 0; slot < row.rows; ++slot)
      if (use[static_cast<std::size_t>(slot)] == usable) scale({row.row(slot) + first, 1, n});
  } else if (recipe.over == Recipe::Over::dataset) {
    for (std::ptrdiff_t slot = 0; slot < row.rows; ++slot)
      for (std::ptrdiff_t t = first; t < last && use[static_cast<std::size_t>(slot)] == usable; ++t)
        row.row(slot)[t] = (row.row(slot)[t] - recipe.center[static_cast<std::size_t>(slot)]) /
                           recipe.spread[static_cast<std::size_t>(slot)];
  } else {
    scratch.clear();
    for (std::ptrdiff_t slot = 0; slot < row.rows; ++slot)
      if (use[static_cast<std::size_t>(slot)] == usable)
        scratch.insert(scratch.end(), row.row(slot) + first, row.row(slot) + last);
    scale({scratch.data(), 1, static_cast<std::ptrdiff_t>(scratch.size())});
    const double* from = scratch.data();
    for (std::ptrdiff_t slot = 0; slot < row.rows; ++slot)
      if (use[static_cast<std::size_t>(slot)] == usable) {
        std::copy(from, from + n, row.row(slot) + first);
        from += n;
      }
  }
}

void append(std::vector<std::byte>& out, View<const double> row, bool half) {
  const std::ptrdiff_t n = row.rows * row.cols;
  const std::size_t begin = out.size(), width = half ? 2 : 4;
  out.resize(begin + static_cast<std::size_t>(n) * width);
  std::byte* to = out.data() + begin;
  for (std::ptrdiff_t i = 0; i < n; ++i, to += width) {
    const auto value = static_cast<float>(row.data[i]);
    if (half) {
      const std::uint16_t bits = to_half(value);
      std::memcpy(to, &bits, 2);
    } else {
      std::memcpy(to, &value, 4);
    }
  }
}

Rows rows_of(const Record& record, const Recipe& recipe, const std::vector<std::int64_t>& centers, Filters& filters,
             std::ptrdiff_t record_index) {
  Rows rows;
  for (const auto& text : record.warnings) rows.warnings.push_back({record_index, "read", text});
  if (recipe.kind == Recipe::Kind::beat) {
    const auto window =
        static_cast<std::int64_t>(std::ceil(static_cast<double>(recipe.length) * record.fs / recipe.fs));
    for (std::int64_t c : centers)
      if (c < -window || c >= record.signal.cols + window)
        throw StageError("rows", record.name + ": centre " + std::to_string(c) +
                                     " is more than a window outside the signal of " +
                                     std::to_string(record.signal.cols) + " samples");
  }
  const std::vector<Lead> leads = condition(record, recipe, filters, rows, record_index);
  const Ratio ratio = filters.ratio;
  const std::ptrdiff_t n_samples = resampled_length(record.signal.cols, ratio.up, ratio.down);
  const auto n_slots = static_cast<std::ptrdiff_t>(leads.size());
  const std::ptrdiff_t count =
      n_rows(recipe, record.signal.cols, record.fs, static_cast<std::ptrdiff_t>(centers.size()));

  Array<double> row(n_slots, recipe.length);
  std::vector<double> scratch;
  std::vector<Use> use(static_cast<std::size_t>(n_slots));
  std::ptrdiff_t dropped = 0;
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    std::int64_t start = i * (recipe.length - recipe.overlap);  // at the recipe's rate
    std::int64_t place = floor_div(start * ratio.down, ratio.up);
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
    std::fill(row.values.begin(), row.values.end(), 0.0);
    for (std::ptrdiff_t slot = 0; slot < n_slots; ++slot)
      if (use[static_cast<std::size_t>(slot)] == usable) {
        const double* from = leads[static_cast<std::size_t>(slot)].values.data() + start;
        std::copy(from + first, from + last, row.row(slot) + first);
      }
    scale_row(row.view(), first, last, use, recipe, scratch);
    append(rows.values, static_cast<const Array<double>&>(row).view(), recipe.half);
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
  return rows;
}

}  // namespace

std::ptrdiff_t n_rows(const Recipe& recipe, std::ptrdiff_t n_samples, double fs, std::ptrdiff_t n_centers) {
  if (n_samples < 1) return 0;
  if (recipe.kind == Recipe::Kind::record) return 1;
  if (recipe.kind == Recipe::Kind::beat) return n_centers;
  const Ratio ratio = rate_ratio(fs, recipe.fs);
  const std::ptrdiff_t n = resampled_length(n_samples, ratio.up, ratio.down), hop = recipe.length - recipe.overlap;
  return n <= recipe.length ? 1 : (n - recipe.overlap + hop - 1) / hop;  // the last window holds the rest, padded
}

std::vector<std::ptrdiff_t> match_leads(const std::vector<std::vector<std::string>>& slots,
                                        const std::vector<std::string>& leads) {
  std::vector<std::ptrdiff_t> chosen(slots.size(), -1);
  std::vector<char> taken(leads.size(), 0);
  for (std::size_t slot = 0; slot < slots.size(); ++slot)
    for (std::size_t name = 0; name < slots[slot].size() && chosen[slot] < 0; ++name)
      for (std::size_t lead = 0; lead < leads.size() && chosen[slot] < 0; ++lead)
        if (!taken[lead] && lower(leads[lead]) == lower(slots[slot][name])) {
          chosen[slot] = static_cast<std::ptrdiff_t>(lead);
          taken[lead] = 1;
        }
  return chosen;
}

std::vector<Rows> prepare(const std::vector<Input>& inputs, const Recipe& recipe,
                          const std::vector<std::vector<std::int64_t>>& centers, int n_threads, bool skip_errors) {
  check(recipe);
  if (recipe.kind == Recipe::Kind::beat && centers.size() != inputs.size())
    throw std::invalid_argument("centers: beat rows need one array of R peaks per record");
  static const std::vector<std::int64_t> no_centers;
  std::vector<Rows> all(inputs.size());
  std::vector<std::exception_ptr> failures(inputs.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    Filters filters;
    for (std::size_t i; (i = next++) < inputs.size();) {
      const auto index = static_cast<std::ptrdiff_t>(i);
      const auto list = [&](const std::string& stage, const char* reason) {
        failures[i] = std::current_exception();
        all[i] = Rows{};
        all[i].errors.push_back({index, stage, reason});
      };
      try {
        const auto& here = recipe.kind == Recipe::Kind::beat ? centers[i] : no_centers;
        if (inputs[i].record) {
          all[i] = rows_of(*inputs[i].record, recipe, here, filters, index);
        } else {
          const Record record = read_record(inputs[i].path, {});
          all[i] = rows_of(record, recipe, here, filters, index);
        }
      } catch (const StageError& e) {
        list(e.stage, e.what());
      } catch (const std::exception& e) {
        list("read", e.what());
      }
    }
  };
  std::vector<std::thread> threads;
  for (int t = 1; t < n_threads && t < static_cast<int>(inputs.size()); ++t) threads.emplace_back(work);
  work();
  for (auto& thread : threads) thread.join();
  if (!skip_errors)
    for (const auto& failure : failures)
      if (failure) std::rethrow_exception(failure);
  return all;
}

}  // namespace pqrst
