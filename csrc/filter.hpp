// Zero-phase filters: Butterworth band-pass and notch, designed in closed form, run forwards and backwards.
//
// Equal to scipy.signal.sosfiltfilt with its defaults: odd extension at both ends, each pass started in the steady
// state of its first sample. Everything is float64, whatever comes in: a 0.5 Hz edge at 500 Hz puts poles 0.006 from
// the unit circle, where float32 coefficients are another filter.
//
// A band-pass of order n has n zeros at 1 and n at -1. Pairs of poles near the lower edge get two of the former, those
// near the upper edge two of the latter: so no section is far louder than its neighbours, and numerators are sums. The
// lower ones come first: the offset of a signal ends there, and all others rest at 0 when a pass starts.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "array.hpp"
#include "functions.hpp"
#include "kernels.hpp"
#include "refuse.hpp"

namespace pqrst {

constexpr int max_order = 8;  // a band-pass of this order has as many sections

// ------------------------------------------------------------------------------------------------ design

namespace detail {

// A pair of poles, conjugate or both real, as the analog factor s^2 + A s + B. The bilinear transform
// s = (z - 1) / (z + 1) turns it into D (z^2 + a1 z + a2), and no difference of nearly equal numbers is taken but B
// - 1. The rounding of a1 is made good in a2, (1 - A + B) / D: how far the poles are from 1, 1 + a1 + a2 = 4 B / D, or
// from -1, 1 - a1 + a2 = 4 / D, keeps as many digits as a double a2 allows.
struct PolePair {
  double A, B;

  double D() const { return 1 + A + B; }
  double a1() const { return 2 * (B - 1) / D(); }
  double a2() const { return B < 1 ? 4 * B / D() - (1 + a1()) : 4 / D() - (1 - a1()); }
};

}  // namespace detail

// The poles and the gain of scipy.signal.butter(order, [low_hz, high_hz], "bandpass", fs=fs, output="sos"); of the
// pairs near each edge the closest to the unit circle last.
inline Cascade butterworth_bandpass(int order, double low_hz, double high_hz, double fs) {
  check_rate("fs", fs);
  if (order < 1 || order > max_order) refuse("order", order, "must be from 1 to " + std::to_string(max_order));
  if (!(low_hz > 0)) refuse("low_hz", low_hz, "must be above 0");
  if (!(high_hz < fs / 2)) refuse("high_hz", high_hz, "must be below fs / 2 = " + number(fs / 2));
  if (!(low_hz < high_hz)) refuse("low_hz", low_hz, "must be below high_hz = " + number(high_hz));

  // Band edges in the analog domain, tan(pi f / fs). Distances are taken between frequencies, before any rounding of an
  // angle: cos(pi f / fs) as the sine of the distance to fs / 2, the difference of tangents from high_hz - low_hz.
  const auto sine = [&](double f) { return sin_pi(f / fs); };
  const auto cosine = [&](double f) { return sin_pi((fs / 2 - f) / fs); };
  const double low = sine(low_hz) / cosine(low_hz), high = sine(high_hz) / cosine(high_hz);
  const double width = sine(high_hz - low_hz) / (cosine(low_hz) * cosine(high_hz));
  const double center2 = low * high, center = std::sqrt(low) * std::sqrt(high);

  // Low-pass pole p -> the roots of s^2 - width p s + center2, one near each edge; the closest to the circle last.
  std::vector<detail::PolePair> pairs, upper;
  for (int k = order / 2 - 1; k >= 0; --k) {
    const double turn = (order - 1 - 2 * k) / (2.0 * order);                       // the angle of the pole over pi
    const std::complex<double> wide(-width * cos_pi(turn), width * sin_pi(turn));  // width p, upper half plane
    const std::complex<double> root = square_root((wide - 2 * center) * (wide + 2 * center));
    // the larger root by a sum without cancellation, the smaller one from their product
    const double sign = wide.real() * root.real() + wide.imag() * root.imag() < 0 ? -1 : 1;
    const std::complex<double> s = (wide + sign * root) / 2.0;
    const double size2 = std::norm(s);
    upper.push_back({-2 * s.real(), size2});
    pairs.push_back({-2 * s.real() * (center2 / size2), center2 * (center2 / size2)});
  }
  if (order % 2 == 1) pairs.push_back({width, center2});
  pairs.insert(pairs.end(), upper.begin(), upper.end());

  Cascade cascade{};
  cascade.gain = 1;
  for (const auto& pair : pairs) {
    // How far the section is from a pole at 1, at -1 and from the circle, 1 + a1 + a2, 1 - a1 + a2 and 1 - a2: below
    // this the rounding of a1 and a2 is a hundredth of it, and soon another filter or none
    constexpr double nearest = 2e-14;
    if (!(4 * pair.B / pair.D() > nearest) || !(4 / pair.D() > nearest) || !(2 * pair.A / pair.D() > nearest))
      throw std::invalid_argument("low_hz " + number(low_hz) + ", high_hz " + number(high_hz) +
                                  ": too close to 0, to each other or to fs / 2 = " + number(fs / 2) +
                                  " for an order " + std::to_string(order) + " filter in float64");
    cascade.a1[cascade.n_sections] = pair.a1();
    cascade.a2[cascade.n_sections++] = pair.a2();
    cascade.gain *= width / pair.D();
  }
  cascade.padding = 3 * (2 * cascade.n_sections + 1);
  return cascade;
}

// Equal to scipy.signal.iirnotch(notch_hz, quality, fs).
inline Cascade notch_section(double notch_hz, double quality, double fs) {
  check_rate("fs", fs);
  if (!(notch_hz > 0)) refuse("notch_hz", notch_hz, "must be above 0");
  if (!(notch_hz < fs / 2)) refuse("notch_hz", notch_hz, "must be below fs / 2 = " + number(fs / 2));
  // the notch is notch_hz / quality wide; tan below has its pole where that reaches fs / 2
  if (!(quality > notch_hz / (fs / 2)) || std::isinf(quality))
    refuse("quality", quality, "must be finite and above notch_hz / (fs / 2) = " + number(notch_hz / (fs / 2)));
  const double w0 = 2 * notch_hz / fs, half_width = w0 / quality / 2;  // over pi
  const double gain = 1 / (1 + sin_pi(half_width) / cos_pi(half_width));
  const double cosine = cos_pi(w0);
  const double a1 = -2 * gain * cosine, a2 = 2 * gain - 1;
  if (!(1 + a1 + a2 > 0) || !(1 - a1 + a2 > 0) || !(a2 < 1))
    refuse("quality", quality, "too high for notch_hz = " + number(notch_hz) + ": a pole rounds onto the unit circle");
  Cascade cascade{};
  cascade.n_sections = 1;
  cascade.is_notch = true;
  cascade.a1[0] = a1;
  cascade.a2[0] = a2;
  cascade.middle = -2 * cosine;
  cascade.gain = gain;
  cascade.level = (2 + cascade.middle) / (1 + a1 + a2);
  cascade.padding = 9;
  return cascade;
}

// -------------------------------------------------------------------------------------------- application

// n leads of n_samples each; out may be x. Every lead by itself: its neighbours never change a bit of it.
template <class In, class Out>
void filter(const Cascade& cascade, const In* const* x, Out* const* out, std::ptrdiff_t n_leads,
            std::ptrdiff_t n_samples, Scratch& scratch) {
  if (n_samples <= cascade.padding)
    throw std::invalid_argument("x: has " + std::to_string(n_samples) + " samples, this filter needs at least " +
                                std::to_string(cascade.padding + 1) + " (more than its padding)");
  const std::ptrdiff_t n_frames = n_samples + 2 * cascade.padding;
  constexpr std::ptrdiff_t most_lanes = 8;
  const std::ptrdiff_t n_chunks = (n_frames - 1) / (chunk_values / most_lanes) + 1;
  double* const room = scratch.get(
      static_cast<std::size_t>(std::min(n_frames * most_lanes, chunk_values) +
                               (2 * cascade.padding + n_chunks * n_delays_of(cascade.n_sections)) * most_lanes));
  if constexpr (std::is_same_v<In, double>)
    kernels().filter_double(cascade, x, out, n_leads, n_samples, room);
  else if constexpr (std::is_same_v<Out, double>)
    kernels().filter_widening(cascade, x, out, n_leads, n_samples, room);
  else
    kernels().filter_float(cascade, x, out, n_leads, n_samples, room);
}

template <class T>
void filter(const Cascade& cascade, View<const T> x, View<T> out) {
  std::vector<const T*> from;
  std::vector<T*> to;
  for (std::ptrdiff_t lead = 0; lead < x.rows; ++lead) {
    from.push_back(x.row(lead));
    to.push_back(out.row(lead));
  }
  Scratch scratch;
  filter(cascade, from.data(), to.data(), x.rows, x.cols, scratch);
}

template <class T>
void bandpass(View<const T> x, double fs, double low_hz, double high_hz, int order, View<T> out) {
  filter(butterworth_bandpass(order, low_hz, high_hz, fs), x, out);
}

template <class T>
void notch(View<const T> x, double fs, double notch_hz, double quality, View<T> out) {
  filter(notch_section(notch_hz, quality, fs), x, out);
}

}  // namespace pqrst
