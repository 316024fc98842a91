// Zero-phase filters: Butterworth band-pass and notch, designed in closed form, run forwards and backwards.
//
// Equal to scipy.signal.sosfiltfilt with its defaults: odd extension at both ends, each pass started in the steady
// state of its first sample. Everything is float64, whatever comes in: a 0.5 Hz edge at 500 Hz puts poles 0.006 from
// the unit circle, where float32 coefficients are another filter.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "array.hpp"
#include "refuse.hpp"

namespace pqrst {

// (b0 + b1/z + b2/z^2) / (1 + a1/z + a2/z^2)
struct Section {
  double b0, b1, b2, a1, a2;
};

constexpr int max_order = 8;  // a band-pass of this order has as many sections
constexpr double pi = 3.141592653589793238462643383279502884;

// ------------------------------------------------------------------------------------------------ design

namespace detail {

// A pair of poles, conjugate or both real, as the analog factor s^2 + A s + B. The bilinear transform
// s = (z - 1) / (z + 1) turns it into D (z^2 + a1 z + a2), and no difference of nearly equal numbers is taken but B
// - 1.
struct PolePair {
  double A, B;

  double D() const { return 1 + A + B; }
  double a1() const { return 2 * (B - 1) / D(); }
  double a2() const { return (1 - A + B) / D(); }
  bool real() const { return A * A >= 4 * B; }

  // The pole of the pair that lies closest to the unit circle: 1 - |z|, and the real part of z.
  std::pair<double, double> worst() const {
    if (!real()) {
      const double squared = a2();  // |z|^2
      return {2 * A / D() / (1 + std::sqrt(squared)), (1 - B) / D()};
    }
    const double far = (A + std::sqrt(A * A - 4 * B)) / 2, near = B / far;  // s = -far, -near
    const auto distance = [](double s) { return 2 * std::min(s, 1.0) / (1 + s); };
    const double s = distance(near) <= distance(far) ? near : far;
    return {distance(s), (1 - s) / (1 + s)};
  }
};

}  // namespace detail

// Equal to scipy.signal.butter(order, [low_hz, high_hz], "bandpass", fs=fs, output="sos"), sections in its order: poles
// closest to the unit circle last, each with the nearest zeros left (of `order` at 1 and `order` at -1), the gain in
// the first section. Where two pairs are equally close (low_hz + high_hz = fs / 2) SciPy's order is an accident of
// rounding.
inline std::vector<Section> butterworth_bandpass(int order, double low_hz, double high_hz, double fs) {
  check_rate("fs", fs);
  if (order < 1 || order > max_order) refuse("order", order, "must be from 1 to " + std::to_string(max_order));
  if (!(low_hz > 0)) refuse("low_hz", low_hz, "must be above 0");
  if (!(high_hz < fs / 2)) refuse("high_hz", high_hz, "must be below fs / 2 = " + number(fs / 2));
  if (!(low_hz < high_hz)) refuse("low_hz", low_hz, "must be below high_hz = " + number(high_hz));

  // Band edges in the analog domain, tan(pi f / fs). Distances are taken between frequencies, before any rounding of an
  // angle: cos(pi f / fs) as the sine of the distance to fs / 2, the difference of tangents from high_hz - low_hz.
  const auto cosine = [&](double f) { return std::sin(pi * (fs / 2 - f) / fs); };
  const double low = std::sin(pi * low_hz / fs) / cosine(low_hz), high = std::sin(pi * high_hz / fs) / cosine(high_hz);
  const double width = std::sin(pi * (high_hz - low_hz) / fs) / (cosine(low_hz) * cosine(high_hz));
  const double center2 = low * high, center = std::sqrt(low) * std::sqrt(high);

  // Low-pass pole p -> the roots of s^2 - width p s + center2, one near each edge.
  std::vector<detail::PolePair> pairs;
  for (int k = 0; k < order / 2; ++k) {
    const double angle = pi * (order - 1 - 2 * k) / (2 * order);
    const std::complex<double> wide(-width * std::cos(angle), width * std::sin(angle));  // width p, upper half plane
    const std::complex<double> root = std::sqrt((wide - 2 * center) * (wide + 2 * center));
    // the larger root by a sum without cancellation, the smaller one from their product
    const double sign = wide.real() * root.real() + wide.imag() * root.imag() < 0 ? -1 : 1;
    const std::complex<double> s = (wide + sign * root) / 2.0;
    const double size2 = std::norm(s);
    pairs.push_back({-2 * s.real(), size2});
    pairs.push_back({-2 * s.real() * (center2 / size2), center2 * (center2 / size2)});
  }
  if (order % 2 == 1) pairs.push_back({width, center2});

  double gain = 1;
  for (const auto& pair : pairs) gain *= width / pair.D();

  std::sort(pairs.begin(), pairs.end(), [](const auto& x, const auto& y) { return x.worst() < y.worst(); });
  int zeros[2] = {order, order};  // left at -1, at 1
  std::vector<Section> sections;
  for (const auto& pair : pairs) {
    const int near = pair.worst().second > 0 ? 1 : 0;
    const int from = zeros[near] > 0 ? near : 1 - near;
    const int first = from == 1 ? 1 : -1;
    --zeros[from];
    const int then = zeros[from] > 0 ? from : 1 - from;
    const int second = then == 1 ? 1 : -1;
    --zeros[then];
    const Section s{1, static_cast<double>(-first - second), static_cast<double>(first * second), pair.a1(), pair.a2()};
    // How far the section is from a pole at 1, at -1 and from the circle, 1 + a1 + a2, 1 - a1 + a2 and 1 - a2: below
    // this the rounding of a1 and a2 is a hundredth of it, and soon another filter or none
    constexpr double nearest = 2e-14;
    if (!(4 * pair.B / pair.D() > nearest) || !(4 / pair.D() > nearest) || !(2 * pair.A / pair.D() > nearest))
      throw std::invalid_argument("low_hz " + number(low_hz) + ", high_hz " + number(high_hz) +
                                  ": too close to 0, to each other or to fs / 2 = " + number(fs / 2) +
                                  " for an order " + std::to_string(order) + " filter in float64");
    sections.push_back(s);
  }
  std::reverse(sections.begin(), sections.end());
  sections[0].b0 *= gain;
  sections[0].b1 *= gain;
  sections[0].b2 *= gain;
  return sections;
}

// Equal to scipy.signal.iirnotch(notch_hz, quality, fs).
inline Section notch_section(double notch_hz, double quality, double fs) {
  check_rate("fs", fs);
  if (!(notch_hz > 0)) refuse("notch_hz", notch_hz, "must be above 0");
  if (!(notch_hz < fs / 2)) refuse("notch_hz", notch_hz, "must be below fs / 2 = " + number(fs / 2));
  // the notch is notch_hz / quality wide; tan below has its pole where that reaches fs / 2
  if (!(quality > notch_hz / (fs / 2)) || std::isinf(quality))
    refuse("quality", quality, "must be finite and above notch_hz / (fs / 2) = " + number(notch_hz / (fs / 2)));
  const double w0 = 2 * notch_hz / fs;  // SciPy's steps, rounding by rounding
  const double gain = 1 / (1 + std::tan(w0 / quality * pi / 2));
  const double cosine = std::cos(w0 * pi);
  const Section s{gain, gain * (-2 * cosine), gain, -2 * gain * cosine, 2 * gain - 1};
  if (!(1 + s.a1 + s.a2 > 0) || !(1 - s.a1 + s.a2 > 0) || !(s.a2 < 1))
    refuse("quality", quality, "too high for notch_hz = " + number(notch_hz) + ": a pole rounds onto the unit circle");
  return s;
}

// -------------------------------------------------------------------------------------------- application

namespace detail {

// Direct form II transposed, every product and sum rounded by itself. The states of all sections stay in registers.
template <int n_sections, class Sample>
inline void run_sections(const Section* sections, const std::array<double, 2>* state, double* x, std::ptrdiff_t n,
                         Sample sample) {
  Section s[n_sections];
  double z0[n_sections], z1[n_sections];
  const double first = x[sample(0)];
  for (int i = 0; i < n_sections; ++i) {
    s[i] = sections[i];
    z0[i] = state[i][0] * first;
    z1[i] = state[i][1] * first;
  }
  for (std::ptrdiff_t t = 0; t < n; ++t) {
    double value = x[sample(t)];
    for (int i = 0; i < n_sections; ++i) {
      const double y = s[i].b0 * value + z0[i];
      z0[i] = s[i].b1 * value - s[i].a1 * y + z1[i];
      z1[i] = s[i].b2 * value - s[i].a2 * y;
      value = y;
    }
    x[sample(t)] = value;
  }
}

template <int n_sections>
inline void run_both_ways(const Section* sections, const std::array<double, 2>* state, double* x, std::ptrdiff_t n) {
  run_sections<n_sections>(sections, state, x, n, [](std::ptrdiff_t t) { return t; });
  run_sections<n_sections>(sections, state, x, n, [n](std::ptrdiff_t t) { return n - 1 - t; });
}

}  // namespace detail

// Designed once, used for any number of signals.
struct ZeroPhaseFilter {
  std::vector<Section> sections;             // 1 to max_order
  std::vector<std::array<double, 2>> state;  // of each section, when a constant 1 has gone in forever
  std::ptrdiff_t padding;                    // samples added at each end; a signal must be longer

  explicit ZeroPhaseFilter(std::vector<Section> designed) : sections(std::move(designed)) {
    // sosfilt_zi in closed form. With the section's gain at 0 Hz, H = sum b / sum a, its output is H times its input:
    // z0 = H - b0 and z1 = b2 - a2 H. Sections after a zero at 0 Hz rest at 0.
    double input = 1;
    std::ptrdiff_t zero_b2 = 0, zero_a2 = 0;
    for (const Section& s : sections) {
      const double H = (s.b0 + s.b1 + s.b2) / (1 + s.a1 + s.a2);
      state.push_back({input * (H - s.b0), input * (s.b2 - s.a2 * H)});
      input *= H;
      zero_b2 += s.b2 == 0;
      zero_a2 += s.a2 == 0;
    }
    const std::ptrdiff_t n_taps = 2 * static_cast<std::ptrdiff_t>(sections.size()) + 1 - std::min(zero_b2, zero_a2);
    padding = 3 * n_taps;
  }

  void check_length(std::ptrdiff_t n_samples) const {
    if (n_samples <= padding)
      throw std::invalid_argument("x: has " + std::to_string(n_samples) + " samples, this filter needs at least " +
                                  std::to_string(padding + 1) + " (more than its padding)");
  }

  // out may be x itself. Each lead by itself: its neighbours never change a bit of it.
  template <class T>
  void apply(View<const T> x, View<T> out) const {
    check_length(x.cols);
    const std::ptrdiff_t n = x.cols;
    std::vector<double> extended(static_cast<std::size_t>(n + 2 * padding));
    for (std::ptrdiff_t lead = 0; lead < x.rows; ++lead) {
      const T* in = x.row(lead);
      double* middle = extended.data() + padding;
      std::copy(in, in + n, middle);
      const double first = middle[0], last = middle[n - 1];
      for (std::ptrdiff_t i = 1; i <= padding; ++i) {  // the signal turned by 180 degrees about its end
        middle[-i] = 2 * first - middle[i];
        middle[n - 1 + i] = 2 * last - middle[n - 1 - i];
      }
      both_ways(extended.data(), n + 2 * padding);
      T* result = out.row(lead);
      for (std::ptrdiff_t i = 0; i < n; ++i) result[i] = static_cast<T>(middle[i]);
    }
  }

private:
  void both_ways(double* x, std::ptrdiff_t n) const {
    const Section* s = sections.data();
    const std::array<double, 2>* z = state.data();
    switch (sections.size()) {
      case 1:
        return detail::run_both_ways<1>(s, z, x, n);
      case 2:
        return detail::run_both_ways<2>(s, z, x, n);
      case 3:
        return detail::run_both_ways<3>(s, z, x, n);
      case 4:
        return detail::run_both_ways<4>(s, z, x, n);
      case 5:
        return detail::run_both_ways<5>(s, z, x, n);
      case 6:
        return detail::run_both_ways<6>(s, z, x, n);
      case 7:
        return detail::run_both_ways<7>(s, z, x, n);
      case 8:
        return detail::run_both_ways<8>(s, z, x, n);
      default:
        throw std::invalid_argument("a zero-phase filter has 1 to 8 sections, got " + std::to_string(sections.size()));
    }
  }
};

template <class T>
void bandpass(View<const T> x, double fs, double low_hz, double high_hz, int order, View<T> out) {
  ZeroPhaseFilter(butterworth_bandpass(order, low_hz, high_hz, fs)).apply(x, out);
}

template <class T>
void notch(View<const T> x, double fs, double notch_hz, double quality, View<T> out) {
  ZeroPhaseFilter({notch_section(notch_hz, quality, fs)}).apply(x, out);
}

}  // namespace pqrst
