#include "check.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "leads.hpp"
#include "scale.hpp"

namespace pqrst {
namespace {

bool in_mv(const Record& record, std::size_t lead) {
  return record.units[lead] == "mV" && record.calibrated[lead];
}

// Two digits at least, never an exponent.
std::string rounded(double value) {
  char text[64];
  const int decimals = std::max(0, 1 - static_cast<int>(std::floor(std::log10(value))));
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string listed(const std::vector<std::string>& words, const std::string& last) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) text += (i == 0 ? "" : i + 1 == words.size() ? last : ", ") + words[i];
  return text;
}

// ------------------------------------------------------------------------------------------------ limb leads

enum Limb : std::size_t { I, II, III, aVR, aVL, aVF, n_limb };
constexpr const char* limb_names[n_limb] = {"I", "II", "III", "aVR", "aVL", "aVF"};

// lead = of_I * I + of_II * II
struct Relation {
  Limb lead;
  double of_I, of_II;
  const char* formula;
};
constexpr Relation relations[] = {
    {III, -1, 1, "II - I"},
    {aVR, -0.5, -0.5, "-(I + II) / 2"},
    {aVL, 1, -0.5, "I - II / 2"},
    {aVF, -0.5, 1, "II - I / 2"},
};

// A relation holds if what is left is at most a tenth of the largest of its three leads: devices that filter each lead
// on its own leave up to 4 % (CODE-15%). Not a tenth of the lead itself, which may be the small difference of two large
// ones with the errors of both.
constexpr double tolerance = 0.1;
// Besides, three leads rounded, or cut, to the coarsest usual step of 5 uV are 2 to 5 uV apart.
constexpr double rounding_mv = 0.01;

// The relations hold at each instant, so some are as good as all: one in twenty, but at least and at most so many.
constexpr std::ptrdiff_t one_in = 20, few_instants = 250, most_instants = 20000;
constexpr double least_instants = 100;  // fewer might fit by chance

// Of several explanations those are given that leave as little as the best, and this much more.
constexpr double nearly = 0.01;
constexpr double most_gain = 100;  // believed of one lead beside another

using LimbRows = std::array<const float*, n_limb>;  // nullptr: not there

struct Covariance {
  std::array<std::array<double, n_limb>, n_limb> of{};  // mV^2
  double n_instants = 0;
  bool has(std::size_t lead) const { return of[lead][lead] > 0; }  // not a flat one
  double rms(std::size_t lead) const { return std::sqrt(of[lead][lead]); }
};

// One way to read the limb leads: what is I in truth is called lead[I], and has to be multiplied by gain[I]; and so on.
struct Reading {
  std::array<std::size_t, n_limb> lead{I, II, III, aVR, aVL, aVF};
  std::array<double, n_limb> gain{1, 1, 1, 1, 1, 1};
};

struct Explanation {
  double off;  // of the worst relation
  std::string text;
};

// Made when the extension is loaded: what is made at its first use takes a lock, which a fork could leave closed.
const std::vector<std::vector<std::string>> limb_slots = [] {
  std::vector<std::vector<std::string>> names;
  for (const char* name : limb_names) names.push_back({name});
  return names;
}();

LimbRows limb_rows(const Record& record) {
  const auto chosen = match_leads(limb_slots, record.leads);
  LimbRows rows{};
  for (std::size_t lead = 0; lead < n_limb; ++lead)
    if (chosen[lead] >= 0 && in_mv(record, static_cast<std::size_t>(chosen[lead])))
      rows[lead] = record.signal.row(chosen[lead]);
  return rows;
}

bool can_be_checked(const LimbRows& rows) {
  return rows[I] && rows[II] && std::any_of(rows.begin() + III, rows.end(), [](const float* x) { return x; });
}

// Over the instants at which all leads are valid. Without offsets, and what a relation leaves over follows from it in
// whatever way the leads are read.
Covariance covariance_of(const LimbRows& rows, std::ptrdiff_t n, std::ptrdiff_t step) {
  static const float nothing = 0;
  std::array<const float*, n_limb> from;
  std::array<std::ptrdiff_t, n_limb> stride;
  for (std::size_t lead = 0; lead < n_limb; ++lead) {
    from[lead] = rows[lead] ? rows[lead] : &nothing;
    stride[lead] = rows[lead] ? 1 : 0;
  }
  std::array<double, n_limb> origin{}, sum{};  // about the first instant: a large offset would cost digits
  std::array<std::array<double, n_limb>, n_limb> product{};
  Covariance result;
  for (std::ptrdiff_t i = 0; i < n; i += step) {
    std::array<double, n_limb> x;
    double outside = 0;  // NaN where one is not finite
    for (std::size_t a = 0; a < n_limb; ++a) {
      x[a] = from[a][i * stride[a]];
      outside += x[a] - x[a];
    }
    if (outside != 0) continue;
    if (result.n_instants == 0) origin = x;
    ++result.n_instants;
    for (std::size_t a = 0; a < n_limb; ++a) x[a] -= origin[a];
    for (std::size_t a = 0; a < n_limb; ++a) {
      sum[a] += x[a];
      for (std::size_t b = 0; b < n_limb; ++b) product[a][b] += x[a] * x[b];
    }
  }
  const double count = std::max(1.0, result.n_instants);
  for (std::size_t a = 0; a < n_limb; ++a)
    for (std::size_t b = 0; b < n_limb; ++b)
      result.of[a][b] = product[a][b] / count - sum[a] / count * (sum[b] / count);
  return result;
}

void leave_out_mostly_invalid(LimbRows& rows, std::ptrdiff_t n, std::ptrdiff_t step) {
  for (const float*& x : rows) {
    std::ptrdiff_t n_valid = 0;
    for (std::ptrdiff_t i = 0; x && i < n; i += step) n_valid += std::isfinite(x[i]);
    if (2 * n_valid * step < n) x = nullptr;
  }
}

// RMS of what the relation leaves over, beyond rounding, as a part of that of its largest lead.
double off_by(const Relation& relation, const Covariance& covariance, const Reading& as) {
  const std::array<Limb, 3> names{I, II, relation.lead};
  const std::array<double, 3> factors{relation.of_I, relation.of_II, -1};
  double square = 0, largest = 0;
  for (std::size_t a = 0; a < 3; ++a) {
    const std::size_t lead = as.lead[names[a]];
    for (std::size_t b = 0; b < 3; ++b)
      square +=
          factors[a] * as.gain[names[a]] * (factors[b] * as.gain[names[b]]) * covariance.of[lead][as.lead[names[b]]];
    largest = std::max(largest, std::abs(as.gain[names[a]]) * covariance.rms(lead));
  }
  return std::max(0.0, std::sqrt(std::max(0.0, square)) - rounding_mv) / largest;
}

// Of the worst relation, or of the first that does not hold.
double worst_off(const Covariance& covariance, const Reading& as) {
  double worst = 0;
  for (const Relation& relation : relations)
    if (covariance.has(relation.lead) && worst <= tolerance) worst = std::max(worst, off_by(relation, covariance, as));
  return worst;
}

std::string order_text(const Reading& as) {
  std::vector<std::string> moved, in_words;
  for (std::size_t called = 0; called < n_limb; ++called) {
    const auto lead = static_cast<std::size_t>(std::find(as.lead.begin(), as.lead.end(), called) - as.lead.begin());
    if (lead == called) continue;
    moved.push_back(limb_names[called]);
    in_words.push_back(moved.back() + " is really " + limb_names[lead]);
  }
  return moved.size() == 2 ? moved[0] + " and " + moved[1] + " are swapped" : listed(in_words, " and ");
}

// One lead inverted, or leads in another order: of those that fit, the ones that touch the fewest leads.
std::vector<Explanation> orders(const Covariance& covariance) {
  std::vector<std::size_t> there;
  for (std::size_t lead = 0; lead < n_limb; ++lead)
    if (covariance.has(lead)) there.push_back(lead);
  std::array<std::vector<Explanation>, n_limb + 1> fits;  // by how many leads are not what they are called
  for (const std::size_t lead : there) {
    Reading as;
    as.gain[lead] = -1;
    const double off = worst_off(covariance, as);
    if (off <= tolerance)  // as simple as a swap
      fits[2].push_back({off, limb_names[lead] + std::string(" is inverted")});
  }
  for (auto order = there; std::next_permutation(order.begin(), order.end());) {
    Reading as;
    std::size_t n_moved = 0;
    for (std::size_t i = 0; i < there.size(); ++i) {
      as.lead[there[i]] = order[i];
      n_moved += order[i] != there[i];
    }
    const double off = worst_off(covariance, as);
    if (off <= tolerance) fits[n_moved].push_back({off, order_text(as)});
  }
  for (const auto& simplest : fits)
    if (!simplest.empty()) return simplest;
  return {};
}

// The gains, beside that of I, with which one relation holds as well as it can (least squares), and then each other.
Reading gains_from(const Relation& relation, const Covariance& covariance) {
  const auto& c = covariance.of;
  const auto& with = c[relation.lead];
  const double of_I = (with[I] * c[II][II] - with[II] * c[I][II]) / relation.of_I;
  const double of_II = (with[II] * c[I][I] - with[I] * c[I][II]) / relation.of_II;
  Reading as;
  as.gain[II] = of_II / of_I;
  for (const Relation& other : relations)
    if (covariance.has(other.lead))
      as.gain[other.lead] =
          (other.of_I * c[other.lead][I] + other.of_II * as.gain[II] * c[other.lead][II]) / c[other.lead][other.lead];
  return as;
}

std::string gains_text(const Covariance& covariance, const Reading& as) {
  std::vector<double> gains;
  for (std::size_t lead = 0; lead < n_limb; ++lead)
    if (covariance.has(lead)) gains.push_back(as.gain[lead]);
  std::sort(gains.begin(), gains.end());
  const double usual = gains[(gains.size() - 1) / 2];  // of one odd lead that one is named, be it I
  std::vector<std::string> odd;
  for (std::size_t lead = 0; lead < n_limb; ++lead)
    if (covariance.has(lead) && std::abs(as.gain[lead] / usual - 1) > tolerance)
      odd.push_back(limb_names[lead] + std::string(odd.empty() ? " is multiplied" : "") + " by " +
                    rounded(as.gain[lead] / usual));
  return listed(odd, " and ");
}

// Each lead with a gain of its own: the headers of LUDB make every lead span 1 mV.
std::vector<Explanation> gains(const Covariance& covariance) {
  std::vector<Explanation> best;
  for (const Relation& relation : relations) {
    if (!covariance.has(relation.lead)) continue;
    const Reading as = gains_from(relation, covariance);
    if (!std::all_of(as.gain.begin(), as.gain.end(), [](double g) { return g > 1 / most_gain && g < most_gain; }))
      continue;
    const double off = worst_off(covariance, as);
    if (off <= tolerance && (best.empty() || off < best[0].off)) best = {{off, gains_text(covariance, as)}};
  }
  return best;
}

std::string explained(const Covariance& covariance) {
  auto fits = orders(covariance);
  if (fits.empty()) fits = gains(covariance);
  if (fits.empty()) return "no swap or inversion of one lead, nor other gains, explain it";
  double best = tolerance;
  for (const auto& fit : fits) best = std::min(best, fit.off);
  std::vector<std::string> texts;
  for (const auto& fit : fits)
    if (fit.off <= best + nearly) texts.push_back(fit.text);
  return "it fits if " + listed(texts, ", or if ");
}

void check_limb_leads(const Record& record, std::vector<Doubt>& doubts) {
  LimbRows rows = limb_rows(record);
  if (!can_be_checked(rows)) return;
  const std::ptrdiff_t n = record.signal.cols, instants = std::clamp(n / one_in, few_instants, most_instants);
  const std::ptrdiff_t step = (n + instants - 1) / instants;
  Covariance covariance = covariance_of(rows, n, step);
  if (2 * covariance.n_instants * static_cast<double>(step) < static_cast<double>(n)) {
    leave_out_mostly_invalid(rows, n, step);
    covariance = covariance_of(rows, n, step);
  }
  if (covariance.n_instants < least_instants || !covariance.has(I) || !covariance.has(II)) return;
  std::vector<std::string> broken;
  for (const Relation& relation : relations) {
    const double off = covariance.has(relation.lead) ? off_by(relation, covariance, {}) : 0;
    if (off <= tolerance) continue;
    const std::string percent = std::to_string(std::lround(100 * off));
    broken.push_back(std::string(limb_names[relation.lead]) + " is not " + relation.formula + " (off by " + percent +
                     " %)");
  }
  if (!broken.empty())
    doubts.push_back(
        {"leads", record.name + ": limb leads disagree: " + listed(broken, ", ") + "; " + explained(covariance)});
}

// ------------------------------------------------------------------------------------------------- amplitude

constexpr double window_s = 1.5;  // holds a beat at 40 per minute, and little wander
constexpr double usual_mv = 1.5;
// Half of the smallest and about twice the largest that good recordings show: the weakest of CPSC 2019 spans 0.10 mV,
// of CinC 2017 0.15, the strongest of CinC 2017 and CODE-15% 5.6 and 4.9; PTB-XL lies within 0.4 and 3.5.
constexpr double least_mv = 0.05, most_mv = 10;
constexpr std::ptrdiff_t most_windows = 1000;  // of a longer record so many, evenly

bool plausible_mv(double span) {
  return span >= least_mv && span <= most_mv;
}

// The median of span(0), ..., span(n - 1), without those that are 0. Once most are plausible so is the median, whatever
// the others are, and any such value stands for it: 6.4 -> 2.6 us (12 x 5000), as most records need no more.
template <class Span>
double median_span(std::ptrdiff_t n, Span span) {
  std::vector<double> spans;
  std::ptrdiff_t n_plausible = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const double value = span(i);
    if (value == 0) continue;
    spans.push_back(value);
    n_plausible += plausible_mv(value);
    if (2 * n_plausible > n) return usual_mv;
  }
  if (spans.empty()) return 0;
  const auto middle = spans.begin() + static_cast<std::ptrdiff_t>(spans.size() / 2);
  std::nth_element(spans.begin(), middle, spans.end());
  return *middle;
}

// 0 where nothing is valid.
double span_of(const float* x, std::ptrdiff_t n) {
  const Extent extent = detail::extent(x, n);
  if (extent.finite) return extent.high - extent.low;
  double low = INFINITY, high = -INFINITY;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    if (!std::isfinite(x[i])) continue;
    low = std::min<double>(low, x[i]);
    high = std::max<double>(high, x[i]);
  }
  return high > low ? high - low : 0;
}

// The median over leads of the median over windows: no baseline jump, burst of noise or single odd lead moves it. What
// is flat, such as padding, is left out.
void check_amplitude(const Record& record, std::vector<Doubt>& doubts) {
  const std::ptrdiff_t n = record.signal.cols;
  if (!(window_s * record.fs <= static_cast<double>(n))) return;  // may lie between two beats
  const auto window = static_cast<std::ptrdiff_t>(std::ceil(window_s * record.fs));
  const std::ptrdiff_t windows = n / window, step = (windows + most_windows - 1) / most_windows;
  const double span = median_span(record.signal.rows, [&](std::ptrdiff_t lead) {
    if (!in_mv(record, static_cast<std::size_t>(lead))) return 0.0;
    const float* x = record.signal.row(lead);
    return median_span((windows + step - 1) / step,
                       [&](std::ptrdiff_t i) { return span_of(x + i * step * window, window); });
  });
  if (span == 0 || plausible_mv(span)) return;
  const long decades = std::lround(std::log10(span / usual_mv));
  const std::string power = "1" + std::string(static_cast<std::size_t>(std::abs(decades)), '0');
  doubts.push_back({"amplitude", record.name + ": leads span " + rounded(span) +
                                     " mV (median over leads of the span within 1.5 s), about " +
                                     (decades < 0 ? "1/" + power + " of" : power + " times") +
                                     " the usual 1-2 mV: wrong unit or gain?"});
}

}  // namespace

std::vector<Doubt> plausibility(const Record& record) {
  std::vector<Doubt> doubts;
  check_limb_leads(record, doubts);
  check_amplitude(record, doubts);
  return doubts;
}

}  // namespace pqrst
