#include "formats.hpp"

#include <algorithm>
#include <limits>

namespace pqrst {
namespace {

// The lowest `bits` bits as two's complement.
inline std::int32_t sign_extend(std::uint32_t value, int bits) {
  const std::uint32_t sign = 1u << (bits - 1);
  return static_cast<std::int32_t>(((value & ((sign << 1) - 1)) ^ sign) - sign);
}

inline std::uint32_t u16(const std::uint8_t* b) {
  return b[0] | static_cast<std::uint32_t>(b[1]) << 8;
}

inline std::uint32_t u32(const std::uint8_t* b) {
  return u16(b) | u16(b + 2) << 16;
}

// Two samples in three bytes: the middle byte holds the high bits of both.
struct Block212 {
  static constexpr std::ptrdiff_t samples = 2, bytes = 3;
  // In two loops that are each fast: words out of every third byte, then arithmetic on adjacent words.
  static void get_all(const std::uint8_t* b, std::ptrdiff_t n, std::int32_t* codes) {
    constexpr std::ptrdiff_t kWords = 64;
    std::uint32_t words[kWords];
    for (std::ptrdiff_t first = 0; first < n; first += kWords) {
      const std::ptrdiff_t count = std::min(kWords, n - first);
      for (std::ptrdiff_t i = 0; i < count; ++i) words[i] = u32(b + bytes * (first + i));
      for (std::ptrdiff_t i = 0; i < count; ++i) {
        codes[2 * (first + i)] = static_cast<std::int32_t>(words[i] << 20) >> 20;
        codes[2 * (first + i) + 1] =
            static_cast<std::int32_t>((words[i] & 0xFF0000) << 4 | (words[i] & 0xF000) << 16) >> 20;
      }
    }
  }
  static std::int32_t get(const std::uint8_t* b, std::ptrdiff_t i) {
    return i == 0 ? sign_extend(u16(b), 12) : sign_extend(b[2] | static_cast<std::uint32_t>(b[1] & 0xF0) << 4, 12);
  }
};

// Three samples in two 16-bit words: bits 1..10 of each word, and the upper five bits of both.
struct Block310 {
  static constexpr std::ptrdiff_t samples = 3, bytes = 4;
  static void get_all(const std::uint8_t* b, std::ptrdiff_t n, std::int32_t* codes) {
    for (; n > 0; --n, b += bytes)
      for (std::ptrdiff_t i = 0; i < samples; ++i) *codes++ = get(b, i);
  }
  static std::int32_t get(const std::uint8_t* b, std::ptrdiff_t i) {
    if (i < 2) return sign_extend(u16(b + 2 * i) >> 1, 10);
    return sign_extend((u16(b) >> 11) | (u16(b + 2) >> 11) << 5, 10);
  }
};

// Three samples in the lower 30 bits of a 32-bit word.
struct Block311 {
  static constexpr std::ptrdiff_t samples = 3, bytes = 4;
  static void get_all(const std::uint8_t* b, std::ptrdiff_t n, std::int32_t* codes) {
    for (; n > 0; --n, b += bytes)
      for (std::ptrdiff_t i = 0; i < samples; ++i) *codes++ = get(b, i);
  }
  static std::int32_t get(const std::uint8_t* b, std::ptrdiff_t i) { return sign_extend(u16(b + i) >> (2 * i), 10); }
};

// One sample at a time in front of and behind the whole blocks: bytes that a last, incomplete block lacks are not read.
template <class Block>
void decode_blocks(const std::uint8_t* bytes, std::ptrdiff_t skip, std::ptrdiff_t n, std::int32_t* codes) {
  std::ptrdiff_t done = 0;
  if (skip > 0) {
    for (; skip < Block::samples && done < n; ++skip) codes[done++] = Block::get(bytes, skip);
    bytes += Block::bytes;
  }
  const std::ptrdiff_t whole = (n - done) / Block::samples;
  Block::get_all(bytes, whole, codes + done);
  done += whole * Block::samples;
  bytes += whole * Block::bytes;
  for (std::ptrdiff_t i = 0; done < n; ++i) codes[done++] = Block::get(bytes, i);
}

template <std::ptrdiff_t width, class Get>
void decode_aligned(const std::uint8_t* bytes, std::ptrdiff_t n, std::int32_t* codes, Get get) {
  for (std::ptrdiff_t i = 0; i < n; ++i) codes[i] = get(bytes + width * i);
}

}  // namespace

const char* const kReadableFormats = "0, 8, 16, 24, 32, 61, 80, 160, 212, 310 or 311";

bool is_stored_format(int format) {
  return block_bytes(format) > 0;
}

bool is_flac_format(int format) {
  return format == 508 || format == 516 || format == 524;
}

bool is_invalid_code(int format, std::int32_t& code) {
  switch (format) {
    case 16:
    case 61:
    case 160:
      code = -32768;
      return true;
    case 24:
      code = -8388608;
      return true;
    case 32:
      code = std::numeric_limits<std::int32_t>::min();
      return true;
    case 80:
      code = -128;
      return true;
    case 212:
      code = -2048;
      return true;
    case 310:
    case 311:
      code = -512;
      return true;
    default:
      return false;
  }
}

std::ptrdiff_t block_samples(int format) {
  switch (format) {
    case 212:
      return 2;
    case 310:
    case 311:
      return 3;
    default:
      return 1;
  }
}

std::ptrdiff_t block_bytes(int format) {
  switch (format) {
    case 8:
    case 80:
      return 1;
    case 16:
    case 61:
    case 160:
      return 2;
    case 24:
    case 212:
      return 3;
    case 32:
    case 310:
    case 311:
      return 4;
    default:
      return 0;
  }
}

std::ptrdiff_t bytes_for(int format, std::ptrdiff_t n) {
  std::ptrdiff_t bytes = 0;
  if (__builtin_mul_overflow(n / block_samples(format), block_bytes(format), &bytes)) return -1;
  const std::ptrdiff_t rest = n % block_samples(format);
  std::ptrdiff_t more = 0;
  if (rest == 1) more = 2;
  if (rest == 2) more = format == 311 ? 3 : 4;
  if (__builtin_add_overflow(bytes, more, &bytes)) return -1;
  return bytes;
}

std::ptrdiff_t samples_in(int format, std::ptrdiff_t bytes) {
  std::ptrdiff_t samples = bytes / block_bytes(format) * block_samples(format);
  const std::ptrdiff_t rest = bytes % block_bytes(format);
  if (block_samples(format) > 1 && rest >= 2) samples += format == 311 && rest == 3 ? 2 : 1;
  return samples;
}

void decode(int format, const std::uint8_t* bytes, std::ptrdiff_t skip, std::ptrdiff_t n, std::int32_t* codes) {
  using Byte = const std::uint8_t*;
  switch (format) {
    case 8:
      return decode_aligned<1>(bytes, n, codes, [](Byte b) { return sign_extend(b[0], 8); });
    case 16:
      return decode_aligned<2>(bytes, n, codes, [](Byte b) { return sign_extend(u16(b), 16); });
    case 24:  // in the upper bytes of a word
      return decode_aligned<3>(bytes, n, codes, [](Byte b) { return static_cast<std::int32_t>(u32(b) << 8) >> 8; });
    case 32:
      return decode_aligned<4>(bytes, n, codes, [](Byte b) { return static_cast<std::int32_t>(u32(b)); });
    case 61:
      return decode_aligned<2>(bytes, n, codes,
                               [](Byte b) { return sign_extend(b[1] | static_cast<std::uint32_t>(b[0]) << 8, 16); });
    case 80:
      return decode_aligned<1>(bytes, n, codes, [](Byte b) { return static_cast<std::int32_t>(b[0]) - 128; });
    case 160:
      return decode_aligned<2>(bytes, n, codes, [](Byte b) { return static_cast<std::int32_t>(u16(b)) - 32768; });
    case 212:
      return decode_blocks<Block212>(bytes, skip, n, codes);
    case 310:
      return decode_blocks<Block310>(bytes, skip, n, codes);
    case 311:
      return decode_blocks<Block311>(bytes, skip, n, codes);
    default:
      return;
  }
}

}  // namespace pqrst
