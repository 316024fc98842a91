// From the codes of a signal file to rows of float32 at one SIMD level. But for the turning, these are plain loops that
// a compiler vectorises itself; a choice between values would keep it from that.

// `n` frames of `stride` samples become `stride` rows of `n`, so that all other loops run over adjacent samples. Blocks
// of 4 x 4 are turned in registers.
void turn_frames(const std::int32_t* frames, std::ptrdiff_t n, std::ptrdiff_t stride, std::int32_t* rows) {
  using V = Lanes<std::int32_t, 4>;
  const std::ptrdiff_t whole = n / 4 * 4;
  for (std::ptrdiff_t k = 0; k < stride; k += 4) {
    const std::ptrdiff_t width = stride - k < 4 ? stride - k : 4;
    for (std::ptrdiff_t i = 0; i < whole; i += 4) {
      V block[4];
      for (int j = 0; j < 4; ++j) block[j] = load<V>(frames + (i + j) * stride + k);
      transpose<std::int32_t>(block);
      std::int32_t* row = rows + k * n + i;
      store(row, block[0]);
      if (width > 1) store(row + n, block[1]);
      if (width > 2) store(row + 2 * n, block[2]);
      if (width > 3) store(row + 3 * n, block[3]);
    }
    for (std::ptrdiff_t j = k; j < k + width; ++j)
      for (std::ptrdiff_t i = whole; i < n; ++i) rows[j * n + i] = frames[i * stride + j];
  }
}

std::uint32_t sum_codes(const std::int32_t* codes, std::ptrdiff_t n) {
  std::uint32_t sum = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) sum += static_cast<std::uint32_t>(codes[i]);
  return sum;
}

void convert_codes(const Calibration& c, const std::int32_t* codes, std::ptrdiff_t n, float* out) {
  std::int32_t any_invalid = 0;
  if (c.in_float) {
    const auto baseline = static_cast<std::int32_t>(c.baseline);
    const auto gain = static_cast<float>(c.gain);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      out[i] = static_cast<float>(codes[i] - baseline) / gain;
      any_invalid |= codes[i] == c.invalid ? -1 : 0;
    }
  } else {
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      out[i] = static_cast<float>((codes[i] - c.baseline) / c.gain * c.to_mv);
      any_invalid |= codes[i] == c.invalid ? -1 : 0;
    }
  }
  if (!c.has_invalid || any_invalid == 0) return;
  for (std::ptrdiff_t i = 0; i < n; ++i)
    if (codes[i] == c.invalid) out[i] = __builtin_nanf("");
}
