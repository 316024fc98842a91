// Prints a hash of what every kernel puts out, for the level that PQRST_SIMD names: to be compared between levels, and
// between this machine and an emulated one. Numbers are made from integers and the filters are given, so that nothing
// depends on a C library.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "../csrc/filter.hpp"
#include "../csrc/resample.hpp"
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
    Cascade cascade{};
    cascade.n_sections = n_sections;
    for (int k = 0; k < n_sections; ++k) {
      cascade.a1[k] = k < n_sections / 2 ? -1.984375 : -1.25;
      cascade.a2[k] = k < n_sections / 2 ? 0.984619140625 : 0.53125;
    }
    cascade.gain = 0.0078125;
    cascade.padding = 3 * (2 * n_sections + 1);
    filter(cascade, x.view(), out.view());
    print("band-pass", out);
  }
  const Cascade notch{1, true, {-1.25}, {0.875}, -1.375, 0.9375, 1, 9};
  filter(notch, x.view(), out.view());
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
    const RandomKey key{{1, 2, 3, 4, 0x1BD11BDA ^ 1 ^ 2 ^ 3 ^ 4}, 5};
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

}  // namespace

int main() {
  std::fprintf(stderr, "%s\n", kernels().level);
  for (const auto& [n_leads, n_samples] : {std::pair{1, 60}, {2, 64}, {3, 1001}, {8, 5000}, {12, 999}, {15, 20011}}) {
    run<float>(n_leads, n_samples);
    run<double>(n_leads, n_samples);
  }
}
