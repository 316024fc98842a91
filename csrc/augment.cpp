#include "augment.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

namespace pqrst {
namespace {

RandomKey key_of(const Augmentation& augmentation, std::uint64_t row) {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  return random_key(low(augmentation.seed), high(augmentation.seed), augmentation.epoch, low(row), high(row));
}

// What random words are for: the third word of their counter.
enum Stream : std::uint32_t { of_samples = 0, of_row = 1, of_lead = 2, of_subset = 3 };

struct Words {
  std::uint32_t word[4];
  Words(const RandomKey& key, Stream stream, std::uint32_t number) {
    const std::uint32_t counter[4] = {number, 0, stream, key.row};
    kernels().random_words(&key, counter, word);
  }
  double unit(int i) const { return (word[i] + 0.5) * 0x1p-32; }
  double between(int i, double low, double high) const { return low + (high - low) * unit(i); }
};

// Sample t becomes sample t + shift; the ends repeat.
void shift_by(std::ptrdiff_t shift, float* x, std::ptrdiff_t n) {
  shift = std::clamp<std::ptrdiff_t>(shift, 1 - n, n - 1);
  if (shift > 0) {
    const float end = x[n - 1];
    std::copy(x + shift, x + n, x);
    std::fill(x + n - shift, x + n, end);
  } else {
    const float begin = x[0];
    std::copy_backward(x, x + n + shift, x + n);
    std::fill(x, x - shift, begin);
  }
}

// The leads with a signal among those of n samples at x. One that is missing or flat is zeros in a row, here as in use:
// it gets no noise, and is not what a row is left with.
std::vector<std::ptrdiff_t> leads_with_signal(const float* x, std::ptrdiff_t n_leads, std::ptrdiff_t length,
                                              std::ptrdiff_t n) {
  std::vector<std::ptrdiff_t> leads;
  for (std::ptrdiff_t lead = 0; lead < n_leads; ++lead)
    if (std::any_of(x + lead * length, x + lead * length + n, [](float value) { return value != 0; }))
      leads.push_back(lead);
  return leads;
}

// Sets each of these leads to zero by chance, but not all of them.
void drop_leads(const RandomKey& key, double chance, float* x, const std::vector<std::ptrdiff_t>& leads,
                std::ptrdiff_t length, std::ptrdiff_t n) {
  const auto dropped = [&](std::ptrdiff_t lead) {
    return Words(key, of_lead, static_cast<std::uint32_t>(lead)).unit(2) < chance;
  };
  if (std::all_of(leads.begin(), leads.end(), dropped)) return;
  for (const std::ptrdiff_t lead : leads)
    if (dropped(lead)) std::fill_n(x + lead * length, n, 0.0f);
}

// By chance sets all but 1 or more of these leads to zero, each number and each choice of so many equally likely: the
// selection sampling of Fan, Muller and Rezucha (1962). Tells whether it has chosen.
bool keep_subset(const RandomKey& key, double chance, float* x, const std::vector<std::ptrdiff_t>& leads,
                 std::ptrdiff_t length, std::ptrdiff_t n) {
  const Words of_all(key, of_subset, 0);
  if (!(of_all.unit(0) < chance)) return false;
  auto left = static_cast<double>(leads.size());
  auto wanted = 1 + static_cast<std::ptrdiff_t>(left * of_all.unit(1));
  for (const std::ptrdiff_t lead : leads) {
    const Words of_this(key, of_subset, 1 + static_cast<std::uint32_t>(lead));
    if (left-- * of_this.unit(0) < static_cast<double>(wanted))
      --wanted;
    else
      std::fill_n(x + lead * length, n, 0.0f);
  }
  return true;
}

void change(const Augmentation& a, std::uint64_t row, float* x, std::ptrdiff_t n_leads, std::ptrdiff_t length,
            std::ptrdiff_t first, std::ptrdiff_t last) {
  constexpr double slowest_hz = 0.05, fastest_hz = 0.5;
  const RandomKey key = key_of(a, row);
  const Words of_all(key, of_row, 0);
  const double most = std::round(a.shift_s * a.fs);  // samples either way
  const auto shift = static_cast<std::ptrdiff_t>(std::floor((2 * most + 1) * of_all.unit(0)) - most);
  const double sign = of_all.unit(3) < a.polarity ? -1 : 1;
  const auto factor = static_cast<float>(sign * of_all.between(1, 1 - a.gain, 1 + a.gain));
  const auto turns_per_sample = static_cast<float>(of_all.between(2, slowest_hz, fastest_hz) / a.fs);
  const std::ptrdiff_t n = last - first;
  const std::vector<std::ptrdiff_t> leads = leads_with_signal(x + first, n_leads, length, n);
  for (const std::ptrdiff_t lead : leads) {
    float* const here = x + lead * length + first;
    if (shift != 0) shift_by(shift, here, n);
    if (factor != 1) std::transform(here, here + n, here, [&](float value) { return value * factor; });
    if (a.wander > 0) {
      const Words of_this(key, of_lead, static_cast<std::uint32_t>(lead));
      kernels().add_wave(static_cast<float>(of_this.between(0, 0, a.wander)), turns_per_sample,
                         static_cast<float>(of_this.unit(1)), here, n);
    }
    if (a.noise > 0) kernels().add_noise(&key, static_cast<std::uint32_t>(lead), static_cast<float>(a.noise), here, n);
  }
  const bool chosen = a.lead_subset > 0 && keep_subset(key, a.lead_subset, x + first, leads, length, n);
  if (a.lead_dropout > 0 && !chosen) drop_leads(key, a.lead_dropout, x + first, leads, length, n);
  if (a.time_mask_s > 0) {
    const Words of_mask(key, of_row, 1);
    const auto longest = std::min(std::round(a.time_mask_s * a.fs), static_cast<double>(n));
    const auto hidden = static_cast<std::ptrdiff_t>((longest + 1) * of_mask.unit(0));
    const auto from = static_cast<std::ptrdiff_t>(static_cast<double>(n - hidden + 1) * of_mask.unit(1));
    for (std::ptrdiff_t lead = 0; lead < n_leads; ++lead) std::fill_n(x + lead * length + first + from, hidden, 0.0f);
  }
}

}  // namespace

void check(const Augmentation& a) {
  const auto refuse = [](const char* name, double value, const char* expected) {
    throw std::invalid_argument(name + (" " + std::to_string(value)) + ": expected " + expected);
  };
  if (!(std::isfinite(a.fs) && a.fs > 0)) refuse("fs", a.fs, "a finite number above 0 Hz");
  const auto check_amount = [&](const char* name, double value) {
    if (!(std::isfinite(value) && value >= 0)) refuse(name, value, "a finite number, 0 or more");
  };
  check_amount("noise", a.noise);
  check_amount("wander", a.wander);
  check_amount("shift_s", a.shift_s);
  check_amount("time_mask_s", a.time_mask_s);
  if (!(a.gain >= 0 && a.gain < 1)) refuse("gain", a.gain, "0 or more and below 1");
  if (!(a.polarity >= 0 && a.polarity <= 1)) refuse("polarity", a.polarity, "0 to 1");
  if (!(a.lead_dropout >= 0 && a.lead_dropout < 1)) refuse("lead_dropout", a.lead_dropout, "0 or more and below 1");
  if (!(a.lead_subset >= 0 && a.lead_subset <= 1)) refuse("lead_subset", a.lead_subset, "0 to 1");
  if (a.shift_s * a.fs > 0x1p31) refuse("shift_s", a.shift_s, "less than 2^31 samples");
}

void augment(const Augmentation& augmentation, std::uint64_t row, const float* x, std::ptrdiff_t n_leads,
             std::ptrdiff_t length, std::ptrdiff_t first, std::ptrdiff_t last, float* out) {
  std::copy_n(x, n_leads * length, out);
  change(augmentation, row, out, n_leads, length, first, last);
}

void augment(const Augmentation& augmentation, std::uint64_t row, const Half* x, std::ptrdiff_t n_leads,
             std::ptrdiff_t length, std::ptrdiff_t first, std::ptrdiff_t last, float* out) {
  kernels().widen(x, n_leads * length, out);
  change(augmentation, row, out, n_leads, length, first, last);
}

}  // namespace pqrst
