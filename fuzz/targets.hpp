// What the fuzzer and the replay feed with bytes. A target returns, or says what is wrong and aborts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pqrst::fuzz {

// Between the files of an input of `records`: r.hea, s.hea, t.hea, signal data.
constexpr char kSeparator = '\x1E';

// "records" or "annotations", also the folders of tests/corpus; anything else ends the program.
using Target = void (*)(const std::string& input);
Target target_named(const std::string& name);

}  // namespace pqrst::fuzz
