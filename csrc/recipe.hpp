// All that turns a record into rows, as plain values. recipe.py holds the defaults and the meaning of each key.
#pragma once

#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "array.hpp"

namespace pqrst {

struct Recipe {
  // record: its beginning; whole: windows that cover it; window: windows of one spacing; beat: around its centre
  enum class Kind { record, whole, window, beat };
  enum class Scale { none, zscore, minmax };
  enum class Over { lead, record, dataset };
  struct Bandpass {
    double low_hz, high_hz;
    int order;
  };

  double fs = 0;                                // Hz, of the rows
  bool half = true;                             // float16 rows, otherwise float32
  std::vector<std::vector<std::string>> leads;  // per slot: accepted names in order of preference
  bool missing_is_error = true;
  double max_gap_s = 1.0, max_gap_fraction = 0.1;
  std::optional<Bandpass> bandpass;
  std::optional<double> notch_hz;
  Kind kind = Kind::record;
  std::ptrdiff_t length = 0, overlap = 0, before = 0;  // samples at fs
  Scale scale = Scale::none;
  Over over = Over::lead;
  std::vector<double> center, spread;  // per slot, for Over::dataset
};

// What a recipe must satisfy whatever the record; throws std::invalid_argument that names the key.
inline void check(const Recipe& r) {
  const auto refuse = [](const std::string& text) { throw std::invalid_argument("recipe." + text); };
  if (!(std::isfinite(r.fs) && r.fs > 0)) refuse("fs " + std::to_string(r.fs) + ": must be positive and finite");
  const auto check_number = [&](const char* key, double value, bool good) {
    if (!good) refuse(key + (" " + std::to_string(value)) + ": out of range");
  };
  check_number("gaps.max_s", r.max_gap_s, r.max_gap_s >= 0);
  check_number("gaps.max_fraction", r.max_gap_fraction, r.max_gap_fraction >= 0 && r.max_gap_fraction <= 1);
  if (r.notch_hz) check_number("notch_hz", *r.notch_hz, std::isfinite(*r.notch_hz) && *r.notch_hz > 0);
  if (r.leads.empty()) refuse("leads: has no slots");
  for (const auto& slot : r.leads)
    if (slot.empty()) refuse("leads: every slot needs at least one lead name");
  constexpr std::ptrdiff_t longest = std::ptrdiff_t{1} << 32;
  if (r.length < 1 || r.length > longest) refuse("window: a row needs between 1 and 2^32 samples");
  if (r.kind == Recipe::Kind::window && (r.overlap < 0 || r.overlap >= r.length))
    refuse("window.overlap_s: must be shorter than the window");
  if (r.kind == Recipe::Kind::beat && (r.before < 0 || r.before >= r.length))
    refuse("window.before_s: must lie within the window");
  if (r.over == Recipe::Over::dataset && r.scale != Recipe::Scale::none) {
    if (r.center.size() != r.leads.size() || r.spread.size() != r.leads.size())
      refuse("scale: over dataset needs one center and one spread per slot");
    for (double c : r.center) check_number("scale.center", c, std::isfinite(c));
    for (double s : r.spread) check_number("scale.spread", s, std::isfinite(s) && s > 0);
  }
}

}  // namespace pqrst
