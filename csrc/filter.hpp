// Zero-phase filters: Butterworth band-pass and notch, designed in closed form, run forward and backward in float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "array.hpp"

namespace pqrst {

// One second-order section, a0 = 1.
struct Section {
  double b0, b1, b2, a1, a2;
};

// Shortest decimal that tells two settings apart in a message: 60, 0.5.
inline std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

inline void check_rate(double fs, const char* name) {
  if (!(std::isfinite(fs) && fs > 0))
    throw std::invalid_argument(std::string(name) + " " + number_text(fs) + ": must be positive and finite");
}

inline void check_below_nyquist(double hz, double fs, const char* name) {
  if (!(hz < fs / 2))
    throw std::invalid_argument(std::string(name) + " " + number_text(hz) + ": must be below fs / 2 = " + number_text(fs / 2));
}

// Equal to scipy.signal.butter(order, [low_hz, high_hz], "bandpass", fs=fs, output="sos"), in the order and with the
// pairing of its sections: analogue prototype -> band-pass -> bilinear transform with prewarped edges.
inline std::vector<Section> butterworth_bandpass(int order, double low_hz, double high_hz, double fs) {
  using Complex = std::complex<double>;
  check_rate(fs, "fs");
  if (order < 1 || order > 8) throw std::invalid_argument("order " + std::to_string(order) + ": must be from 1 to 8");
  if (!(std::isfinite(low_hz) && low_hz > 0))
    throw std::invalid_argument("low_hz " + number_text(low_hz) + ": must be positive and finite");
  if (!(low_hz < high_hz))
    throw std::invalid_argument("low_hz " + number_text(low_hz) + ": must be below high_hz = " + number_text(high_hz));
  check_below_nyquist(high_hz, fs, "high_hz");

  constexpr double pi = 3.14159265358979323846;
  const double low = 4 * std::tan(pi * (2 * low_hz / fs) / 2), high = 4 * std::tan(pi * (2 * high_hz / fs) / 2);
  const double width = high - low, middle = std::sqrt(low * high);
  const auto bilinear = [](Complex s) { return (4.0 + s) / (4.0 - s); };

  // Of each conjugate pair the pole with positive imaginary part; real poles both.
  std::vector<Complex> poles;
  Complex product = 1;  // of 4 - s over all analogue poles
  for (int m = order % 2 == 0 ? 1 : 0; m < order; m += 2) {
    const double angle = pi * m / (2.0 * order);
    const Complex prototype = m == 0 ? Complex(-1, 0) : -std::exp(Complex(0, angle));
    const Complex scaled = prototype * (width / 2);
    const Complex root = std::sqrt(scaled * scaled - middle * middle);
    const Complex pair[] = {scaled + root, scaled - root};
    for (const Complex& s : pair) {
      if (m > 0) product *= (4.0 - s) * (4.0 - std::conj(s));
      else product *= 4.0 - s;
      if (m == 0 && root.imag() != 0 && &s == &pair[1]) continue;  // the conjugate of pair[0]
      const Complex p = bilinear(s);
      poles.push_back(p.imag() < 0 ? std::conj(p) : p);
    }
  }
  const double gain = std::pow(width, order) * std::pow(4.0, order) / product.real();

  // As scipy.signal.zpk2sos: the pole nearest the unit circle goes last, with the zeros nearest to it.
  int zeros_at_one = order, zeros_at_minus_one = order;
  const auto take_zero = [&](Complex p) {
    const bool at_one = zeros_at_minus_one == 0 || (zeros_at_one > 0 && std::abs(p - 1.0) <= std::abs(p + 1.0));
    (at_one ? zeros_at_one : zeros_at_minus_one) -= 1;
    return at_one ? 1.0 : -1.0;
  };
  const auto take_worst = [&poles](bool real_only) {
    std::size_t worst = poles.size();
    for (std::size_t i = 0; i < poles.size(); ++i)
      if ((!real_only || poles[i].imag() == 0) &&
          (worst == poles.size() || std::abs(1 - std::abs(poles[i])) < std::abs(1 - std::abs(poles[worst]))))
        worst = i;
    const Complex p = poles[worst];
    poles.erase(poles.begin() + static_cast<std::ptrdiff_t>(worst));
    return p;
  };
  std::vector<Section> sections;
  while (!poles.empty()) {
    const Complex p1 = take_worst(false);
    const Complex p2 = p1.imag() == 0 ? take_worst(true) : std::conj(p1);
    const double z1 = take_zero(p1), z2 = take_zero(p1);
    sections.push_back({1, -(z1 + z2), z1 * z2, -(p1 + p2).real(), (p1 * p2).real()});
  }
  std::reverse(sections.begin(), sections.end());
  Section& first = sections.front();
  first.b0 *= gain;
  first.b1 *= gain;
  first.b2 *= gain;
  return sections;
}

// Equal to scipy.signal.iirnotch(notch_hz, quality, fs).
inline Section notch_section(double notch_hz, double quality, double fs) {
  check_rate(fs, "fs");
  if (!(std::isfinite(notch_hz) && notch_hz > 0))
    throw std::invalid_argument("notch_hz " + number_text(notch_hz) + ": must be positive and finite");
  check_below_nyquist(notch_hz, fs, "notch_hz");
  if (!(std::isfinite(quality) && quality > 0))
    throw std::invalid_argument("quality " + number_text(quality) + ": must be positive and finite");
  constexpr double pi = 3.14159265358979323846;
  const double w = 2 * notch_hz / fs * pi, width = w / quality;
  const double gain = 1 / (1 + std::tan(width / 2)), cosine = std::cos(w);
  return {gain, -2 * gain * cosine, gain, -2 * gain * cosine, 2 * gain - 1};
}

// Sections with the state in which a constant input 1 has run for ever, scipy.signal.sosfilt_zi.
class ZeroPhaseFilter {
 public:
  explicit ZeroPhaseFilter(std::vector<Section> sections) : sections_(std::move(sections)) {
    double scale = 1;
    std::ptrdiff_t short_numerators = 0, short_denominators = 0;
    for (const Section& s : sections_) {
      const double zi0 = ((s.b1 - s.a1 * s.b0) + (s.b2 - s.a2 * s.b0)) / (1 + s.a1 + s.a2);
      steady_.push_back({scale * zi0, scale * ((1 + s.a1) * zi0 - (s.b1 - s.a1 * s.b0))});
      scale *= (s.b0 + s.b1 + s.b2) / (1 + s.a1 + s.a2);
      short_numerators += s.b2 == 0;
      short_denominators += s.a2 == 0;
    }
    const auto n = static_cast<std::ptrdiff_t>(sections_.size());
    padding_ = 3 * (2 * n + 1 - std::min(short_numerators, short_denominators));
  }

  const std::vector<Section>& sections() const { return sections_; }
  const std::vector<std::pair<double, double>>& steady_state() const { return steady_; }
  std::ptrdiff_t padding() const { return padding_; }  // samples that a signal must exceed

  // Each row forward and backward, its ends extended by point reflection (scipy.signal.sosfiltfilt). out may be x.
  template <class T>
  void apply(View<const T> x, View<T> out) const {
    if (x.cols <= padding_)
      throw std::invalid_argument("x: has " + std::to_string(x.cols) + " samples, the filter needs more than " +
                                  std::to_string(padding_));
    std::vector<double> extended(static_cast<std::size_t>(x.cols + 2 * padding_));
    for (std::ptrdiff_t lead = 0; lead < x.rows; ++lead) {
      const T* from = x.row(lead);
      double* to = extended.data();
      const double first = from[0], last = from[x.cols - 1];
      for (std::ptrdiff_t i = padding_; i > 0; --i) *to++ = 2 * first - static_cast<double>(from[i]);
      to = std::copy(from, from + x.cols, to);
      for (std::ptrdiff_t i = 2; i <= padding_ + 1; ++i) *to++ = 2 * last - static_cast<double>(from[x.cols - i]);
      run(extended);
      std::reverse(extended.begin(), extended.end());
      run(extended);
      const double* filtered = extended.data() + extended.size() - 1 - padding_;
      for (std::ptrdiff_t i = 0; i < x.cols; ++i) out.row(lead)[i] = static_cast<T>(filtered[-i]);
    }
  }

 private:
  // Direct form II transposed, in place, from the steady state of the first value.
  void run(std::vector<double>& x) const {
    const double first = x.front();
    for (std::size_t k = 0; k < sections_.size(); ++k) {
      const Section s = sections_[k];
      double z0 = steady_[k].first * first, z1 = steady_[k].second * first;
      for (double& value : x) {
        const double in = value, y = s.b0 * in + z0;
        z0 = s.b1 * in - s.a1 * y + z1;
        z1 = s.b2 * in - s.a2 * y;
        value = y;
      }
    }
  }

  std::vector<Section> sections_;
  std::vector<std::pair<double, double>> steady_;
  std::ptrdiff_t padding_ = 0;
};

inline ZeroPhaseFilter bandpass_filter(double fs, double low_hz, double high_hz, int order) {
  return ZeroPhaseFilter(butterworth_bandpass(order, low_hz, high_hz, fs));
}

constexpr double default_notch_quality = 30;  // width at -3 dB: a thirtieth of the frequency

inline ZeroPhaseFilter notch_filter(double fs, double notch_hz, double quality) {
  return ZeroPhaseFilter({notch_section(notch_hz, quality, fs)});
}

}  // namespace pqrst
