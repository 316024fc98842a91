// The storage formats of WFDB signal files, as signal(5) of the WFDB Applications Guide has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pqrst {

// 0 and FLAC are no byte layouts and not among them.
bool is_stored_format(int format);
bool is_flac_format(int format);

// The formats that read_record decodes, for messages.
extern const char* const kReadableFormats;

// The code that marks a missing sample: the lowest one. Format 8 holds differences and has none.
bool is_invalid_code(int format, std::int32_t& code);

// Bytes that hold the first `n` samples; -1 where that overflows.
std::ptrdiff_t bytes_for(int format, std::ptrdiff_t n);

// Whole samples in `bytes`.
std::ptrdiff_t samples_in(int format, std::ptrdiff_t bytes);

// Samples that share bytes (2 in 212, 3 in 310 and 311), and the bytes they share.
std::ptrdiff_t block_samples(int format);
std::ptrdiff_t block_bytes(int format);

// `n` codes; `bytes` is the start of a block, of which the first `skip` samples are left out. Format 8 gives the
// differences. Behind the bytes that it needs, it touches up to kDecodeAhead more, whatever they hold.
constexpr std::size_t kDecodeAhead = 1;
void decode(int format, const std::uint8_t* bytes, std::ptrdiff_t skip, std::ptrdiff_t n, std::int32_t* codes);

}  // namespace pqrst
