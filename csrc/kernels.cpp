#include "kernels.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__x86_64__) && !defined(PQRST_BASELINE_ONLY)
#include <immintrin.h>
#elif defined(__aarch64__) && !defined(PQRST_BASELINE_ONLY)
#include <arm_neon.h>
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define PQRST_SHUFFLE(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef PQRST_SHUFFLE  // GCC before 12
namespace pqrst {
template <std::size_t bytes>
struct IndexOf;
template <>
struct IndexOf<4> {
  using type = int;
};
template <>
struct IndexOf<8> {
  using type = long long;
};
}  // namespace pqrst
#define PQRST_SHUFFLE(T, a, b, ...) \
  __builtin_shuffle(a, b, Lanes<typename IndexOf<sizeof(T)>::type, sizeof(a) / sizeof(T)>{__VA_ARGS__})
#endif

#define PQRST_FMA_LIBRARY 0
#define PQRST_FMA_X86 1
#define PQRST_FMA_NEON 2

// The text of all kernels, once per level. Each level's functions are compiled for its instructions one by one, not the
// file: so no inline function of a library gets them.

#if defined(__aarch64__) && !defined(PQRST_BASELINE_ONLY)
#define PQRST_LEVEL neon
#define PQRST_REGISTER_BYTES 16
#define PQRST_REGISTERS 32
#define PQRST_FMA PQRST_FMA_NEON
#include "level.inl"
#else
#define PQRST_LEVEL baseline
#define PQRST_REGISTER_BYTES 16
#define PQRST_REGISTERS 16
#define PQRST_FMA PQRST_FMA_LIBRARY
#include "level.inl"
#endif

#if defined(__x86_64__) && !defined(PQRST_BASELINE_ONLY)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define PQRST_LEVEL avx2
#define PQRST_REGISTER_BYTES 32
#define PQRST_REGISTERS 16
#define PQRST_FMA PQRST_FMA_X86
#include "level.inl"
#if defined(__clang__)
#pragma clang attribute pop
#if __clang_major__ >= 18 && __clang_major__ <= 21  // these ask for the width of the registers, too
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,evex512,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#endif
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#define PQRST_LEVEL avx512
#define PQRST_REGISTER_BYTES 64
#define PQRST_REGISTERS 32
#define PQRST_FMA PQRST_FMA_X86
#include "level.inl"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace pqrst {
namespace {

// From the best to the one that every machine has.
std::vector<const Kernels*> levels_of_this_machine() {
  std::vector<const Kernels*> levels;
#if defined(__aarch64__) && !defined(PQRST_BASELINE_ONLY)
  levels.push_back(&neon::table);
#else
#if defined(__x86_64__) && !defined(PQRST_BASELINE_ONLY)
  __builtin_cpu_init();
  // whoever has AVX2 has F16C, which not every compiler can ask for
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) levels.push_back(&avx512::table);
  if (avx2) levels.push_back(&avx2::table);
#endif
  levels.push_back(&baseline::table);
#endif
  return levels;
}

const Kernels& choose() {
  const std::vector<const Kernels*> levels = levels_of_this_machine();
  const char* wanted = std::getenv("PQRST_SIMD");
  if (!wanted || !*wanted) return *levels.front();
  std::string names;
  for (const Kernels* level : levels) {
    if (std::string(wanted) == level->level) return *level;
    names += (names.empty() ? "" : ", ") + std::string(level->level);
  }
  throw std::invalid_argument("PQRST_SIMD=" + std::string(wanted) + ": this machine and build have " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace pqrst
