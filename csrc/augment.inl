// Random changes of a row at one SIMD level. Plain loops over plain arrays, which compilers turn into vectors, and no
// fused multiply-add: all levels give the same bits.

constexpr int n_blocks = 64;             // counters of the generator side by side
constexpr int n_normals = 4 * n_blocks;  // numbers that they give

// ------------------------------------------------------------------------------------------------ the generator

// V: one word, or one of each of several counters.
template <class V>
PQRST_INLINE void mix(V& a, V& b, int rotation) {
  a += b;
  b = ((b << rotation) | (b >> (32 - rotation))) ^ a;
}

// Four rounds, then the key again: `turn` counts them from 1.
template <class V>
PQRST_INLINE void rounds(V (&x)[4], const std::uint32_t (&key)[5], std::uint32_t turn, const int (&rotation)[8]) {
  mix(x[0], x[1], rotation[0]);
  mix(x[2], x[3], rotation[1]);
  mix(x[0], x[3], rotation[2]);
  mix(x[2], x[1], rotation[3]);
  mix(x[0], x[1], rotation[4]);
  mix(x[2], x[3], rotation[5]);
  mix(x[0], x[3], rotation[6]);
  mix(x[2], x[1], rotation[7]);
  x[0] += key[turn % 5];
  x[1] += key[(turn + 1) % 5];
  x[2] += key[(turn + 2) % 5];
  x[3] += key[(turn + 3) % 5] + turn;
}

// Threefry 4x32 with 20 rounds (Salmon, Moraes, Dror and Shaw 2011): four random words of every counter.
template <class V>
PQRST_INLINE void threefry(const std::uint32_t (&key)[5], V (&x)[4]) {
  constexpr int even[8] = {10, 26, 11, 21, 13, 27, 23, 5}, odd[8] = {6, 20, 17, 11, 25, 10, 18, 20};
  for (int i = 0; i < 4; ++i) x[i] += key[i];
  rounds(x, key, 1, even);
  rounds(x, key, 2, odd);
  rounds(x, key, 3, even);
  rounds(x, key, 4, odd);
  rounds(x, key, 5, even);
}

void random_words(const RandomKey* key, const std::uint32_t* counter, std::uint32_t* words) {
  std::uint32_t x[4] = {counter[0], counter[1], counter[2], counter[3]};
  threefry(key->words, x);
  for (int i = 0; i < 4; ++i) words[i] = x[i];
}

// ------------------------------------------------------------------------------------------------ functions

// 24 bits in the middle of their steps: above 0 and below 1.
PQRST_INLINE float unit_of(std::uint32_t word) {
  return (static_cast<float>(static_cast<std::int32_t>(word >> 8)) + 0.5f) * 0x1p-24f;
}

PQRST_INLINE std::int32_t bits_of(float x) {
  std::int32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

PQRST_INLINE float float_of(std::int32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// The natural logarithm of a normal number above 0: that of the power of two, and the series of artanh for the rest,
// which lies between the roots of 1/2 and 2. Within 2e-7.
PQRST_INLINE float log_of(float x) {
  const std::int32_t shifted = bits_of(x) - 0x3f3504f3;  // of sqrt(1/2)
  const std::int32_t exponent = shifted >> 23;
  const float m = float_of((shifted & 0x7fffff) + 0x3f3504f3);
  const float s = (m - 1) / (m + 1), s2 = s * s;
  const float series = s * (2 + s2 * (2 / 3.0f + s2 * (2 / 5.0f + s2 * (2 / 7.0f + s2 * (2 / 9.0f)))));
  return static_cast<float>(exponent) * 0.69314718f + series;
}

// Sine and cosine of so many turns, 0 to 2^20, by their series within an eighth of a turn of the nearest quarter, each
// within 2e-7. Without a branch, which would keep the loops around it from becoming vectors.
PQRST_INLINE void circle_of(float turns, float& sine, float& cosine) {
  const std::int32_t quarter = static_cast<std::int32_t>(turns * 4 + 0.5f);
  const float a = (turns * 4 - static_cast<float>(quarter)) * 1.57079633f, a2 = a * a;
  const float s = a * (1 + a2 * (-1 / 6.0f + a2 * (1 / 120.0f + a2 * (-1 / 5040.0f + a2 * (1 / 362880.0f)))));
  const float c = 1 + a2 * (-1 / 2.0f + a2 * (1 / 24.0f + a2 * (-1 / 720.0f + a2 * (1 / 40320.0f))));
  const std::int32_t swapped = (bits_of(s) ^ bits_of(c)) & -(quarter & 1);
  sine = float_of((bits_of(s) ^ swapped) ^ static_cast<std::int32_t>((quarter & 2u) << 30));
  cosine = float_of((bits_of(c) ^ swapped) ^ static_cast<std::int32_t>(((quarter + 1) & 2u) << 30));
}

// ------------------------------------------------------------------------------------------------ a row

// Standard normal numbers of counters (first + k, lead, 0, row): Box and Muller's pairs. Word w of counter k is number
// w * n_blocks + k.
PQRST_INLINE void normals(const RandomKey& key, std::uint32_t first, std::uint32_t lead, float (&out)[n_normals]) {
  constexpr int n_lanes = native<std::uint32_t>;
  using V = Lanes<std::uint32_t, n_lanes>;
  std::uint32_t words[4][n_blocks];
  V counter;
  for (int k = 0; k < n_lanes; ++k) counter[k] = first + static_cast<std::uint32_t>(k);
  for (int k = 0; k < n_blocks; k += n_lanes, counter += n_lanes) {
    V x[4] = {counter, lead - V{}, V{}, key.row - V{}};
    threefry(key.words, x);
    for (int w = 0; w < 4; ++w) store(words[w] + k, x[w]);
  }
  for (int w = 0; w < 4; w += 2)
    for (int k = 0; k < n_blocks; ++k) {
      const float radius = __builtin_sqrtf(-2 * log_of(unit_of(words[w][k])));
      float sine, cosine;
      circle_of(unit_of(words[w + 1][k]), sine, cosine);
      out[w * n_blocks + k] = radius * cosine;
      out[(w + 1) * n_blocks + k] = radius * sine;
    }
}

void add_noise(const RandomKey* key, std::uint32_t lead, float amount, float* x, std::ptrdiff_t n) {
  float normal[n_normals];
  for (std::ptrdiff_t start = 0; start < n; start += n_normals) {
    normals(*key, static_cast<std::uint32_t>(start / 4), lead, normal);
    const std::ptrdiff_t here = n - start < n_normals ? n - start : n_normals;
    for (std::ptrdiff_t i = 0; i < here; ++i) x[start + i] += amount * normal[i];
  }
}

// Sample t + k of a wave, for k below n_blocks.
PQRST_INLINE void wave(float amplitude, float turns_per_sample, float phase, std::int32_t t, float (&out)[n_blocks]) {
  for (std::int32_t k = 0; k < n_blocks; ++k) {
    float sine, cosine;
    circle_of(turns_per_sample * static_cast<float>(t + k) + phase, sine, cosine);
    out[k] = amplitude * sine;
  }
}

void add_wave(float amplitude, float turns_per_sample, float phase, float* x, std::ptrdiff_t n) {
  float here[n_blocks];
  for (std::ptrdiff_t start = 0; start < n; start += n_blocks) {
    wave(amplitude, turns_per_sample, phase, static_cast<std::int32_t>(start), here);
    const std::ptrdiff_t rest = n - start < n_blocks ? n - start : n_blocks;
    for (std::ptrdiff_t i = 0; i < rest; ++i) x[start + i] += here[i];
  }
}

// The exponent of float32 is 112 further from 0; times a power of two subnormal numbers come out right, too.
PQRST_INLINE float widened(std::uint16_t bits) {
  const std::uint32_t half = bits, magnitude = (half & 0x7fffu) << 13;
  const auto scaled = static_cast<std::uint32_t>(bits_of(float_of(static_cast<std::int32_t>(magnitude)) * 0x1p112f));
  const std::uint32_t infinite = 0x7f800000u & -static_cast<std::uint32_t>(magnitude >= 0x0f800000u);  // or NaN
  return float_of(static_cast<std::int32_t>(scaled | infinite | (half & 0x8000u) << 16));
}

void widen(const Half* x, std::ptrdiff_t n, float* out) {
  for (std::ptrdiff_t i = 0; i < n; ++i) out[i] = widened(x[i].bits);
}
