// Prints a hash of what every design and kernel puts out, for the level that PQRST_SIMD names: to be compared between
// levels, C libraries and machines.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "../csrc/filter.hpp"
#include "../csrc/resample.hpp"
#include "../csrc/rpeaks.hpp"
#include "../csrc/scale.hpp"

using namespace pqrst;

namespace {

std::uint64_t state = 1;

// A walk, in steps of 1/256.
template <class T>
Array<T> signal(std::ptrdiff_t n_leads, std::ptrdiff_t n_samples) {
  Array<T> x(n_leads, n_samples);
  for (std::ptrdiff_t lead = 0; lead < n_leads; ++lead) {
    double value = 3;
    for (std::ptrdiff_t i = 0; i < n_samples; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      value += (static_cast<double>(state >> 56) - 127.5) / 256;
      x.row(lead)[i] = static_cast<T>(value);
    }
  }
  return x;
}

template <class T>
void print(const char* kernel, const Array<T>& x) {
  std::uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (std::ptrdiff_t i = 0; i < x.rows * x.cols; ++i) {
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, x.row(0) + i, sizeof(T));
    for (const unsigned char byte : bytes) hash = (hash ^ byte) * 1099511628211u;
  }
  std::printf("%s %zu %td x %td: %016llx\n", kernel, sizeof(T), x.rows, x.cols, static_cast<unsigned long long>(hash));
}

template <class T>
void run(std::ptrdiff_t n_leads, std::ptrdiff_t n_samples) {
  const Array<T> x = signal<T>(n_leads, n_samples);
  Array<T> out(n_leads, n_samples);
  for (int n_sections = 1; n_sections <= 8; ++n_sections) {
    bandpass(x.view(), 360, 0.5, 40, n_sections, out.view());
    print("band-pass", out);
  }
  notch(x.view(), 360, 50, 30, out.view());
  print("notch", out);
  zscore(x.view(), out.view());
  print("zscore", out);
  minmax(x.view(), out.view());
  print("minmax", out);
  for (const Ratio ratio : {Ratio{25, 18}, Ratio{5, 4}, Ratio{1, 2}, Ratio{1, 5}, Ratio{1, 20}, Ratio{500, 257}}) {
    const Resampler<T> resampler(ratio);
    Array<T> resampled(n_leads, resampler.output_length(n_samples));
    resampler.apply(x.view(), resampled.view());
    print("resample", resampled);
  }
  if constexpr (std::is_same_v<T, float>) {
    const RandomKey key = random_key(1, 2, 3, 4, 5);
    for (std::ptrdiff_t lead = 0; lead < n_leads; ++lead) {
      std::copy_n(x.row(lead), n_samples, out.row(lead));
      kernels().add_noise(&key, static_cast<std::uint32_t>(lead), 0.1f, out.row(lead), n_samples);
      kernels().add_wave(0.5f, 0.001f, 0.25f, out.row(lead), n_samples);
    }
    print("augment", out);
  }
  if constexpr (std::is_same_v<T, double>) {
    Array<Half> half(n_leads, n_samples);
    for (std::ptrdiff_t lead = 0; lead < n_leads; ++lead)
      detail::scale(x.row(lead), n_samples, zscore_of(x.row(lead), n_samples), half.row(lead));
    print("half", half);
  }
}

Array<double> array_of(const std::vector<double>& values) {
  Array<double> x(1, static_cast<std::ptrdiff_t>(values.size()));
  std::copy(values.begin(), values.end(), x.values.begin());
  return x;
}

void add(const Cascade& cascade, std::vector<double>& numbers) {
  numbers.insert(numbers.end(), cascade.a1, cascade.a1 + cascade.n_sections);
  numbers.insert(numbers.end(), cascade.a2, cascade.a2 + cascade.n_sections);
  numbers.insert(numbers.end(), {cascade.middle, cascade.gain, cascade.level});
}

void designs() {
  std::vector<double> bandpasses, notches;
  for (const double fs : {100.0, 128.0, 250.0, 257.0, 360.0, 499.348, 500.0, 1000.0}) {
    for (int order = 1; order <= max_order; ++order)
      for (const double low_hz : {0.05, 0.5, 0.67, 5.0})
        for (const double high_hz : {15.0, 40.0, 47.0})
          add(butterworth_bandpass(order, low_hz, high_hz, fs), bandpasses);
    for (const double hz : {16.7, 49.9})
      for (const double quality : {2.0, 30.0, 35.0}) add(notch_section(hz, quality, fs), notches);
  }
  print("band-pass design", array_of(bandpasses));
  print("notch design", array_of(notches));
  for (const std::int64_t up : {1, 25, 100, 257, 4097}) print("resampling design", array_of(resampling_taps({up, 18})));
}

// What the R-peak detector sees of every possible beat: logarithms of filtered signals.
void looks(std::ptrdiff_t n_leads) {
  std::vector<RPeakDetector::Seen> seen;
  RPeakDetector detector(360, n_leads);
  detector.seen = &seen;
  const Array<float> x = signal<float>(n_leads, 20011);
  all_beats(detector, x.view());
  std::vector<double> numbers;
  for (const auto& one : seen) {
    numbers.push_back(one.log_height);
    for (const auto& features : one.features) numbers.insert(numbers.end(), features.begin(), features.end());
  }
  print("looks", array_of(numbers));
}

}  // namespace

int main() {
  std::fprintf(stderr, "%s\n", kernels().level);
  designs();
  looks(1);
  looks(3);
  for (const auto& [n_leads, n_samples] : {std::pair{1, 60}, {2, 64}, {3, 1001}, {8, 5000}, {12, 999}, {15, 20011}}) {
    run<float>(n_leads, n_samples);
    run<double>(n_leads, n_samples);
  }
}
