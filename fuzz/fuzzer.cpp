// libFuzzer's entry points. PQRST_FUZZ_TARGET names the target.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "targets.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

const char* target_name() {
  const char* name = std::getenv("PQRST_FUZZ_TARGET");
  return name ? name : "";
}

// Headers that are mostly right: changes of single bytes seldom make one of them out of another.
class Generator {
public:
  explicit Generator(unsigned seed) : random_(seed) {}

  // r.hea, s.hea and t.hea, each with the separator behind it.
  std::string headers() {
    const int n_leads = below(4) + 1, s = below(12) + 1, t = below(12) + 1;
    std::string text;
    if (below(2) == 0) {
      text = single(n_leads, below(3) == 0 ? "" : huge(s)) + pqrst::fuzz::kSeparator;
    } else {
      const bool variable = below(2) == 0;
      int total = 0, n_segments = variable ? 1 : 0;
      std::string lines = variable ? "t 0\n" : "";
      for (const int last = n_segments + below(5) + 1; n_segments < last; ++n_segments) {
        const int kind = below(3), n = kind == 0 ? s : kind == 1 ? t : below(9);
        lines += std::string(kind == 0 ? "s " : kind == 1 ? "t " : "~ ") + std::to_string(n) + "\n";
        total += n;
      }
      text = "r/" + std::to_string(n_segments) + " " + std::to_string(n_leads) + " 250 " +
             (below(3) == 0 ? "" : std::to_string(total)) + "\n" + lines + pqrst::fuzz::kSeparator;
    }
    for (const int n : {s, t}) text += single(n_leads, std::to_string(n)) + pqrst::fuzz::kSeparator;
    return text;
  }

  int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

private:
  template <std::size_t n>
  const char* one_of(const char* const (&words)[n]) {
    return words[below(n)];
  }

  // Now and then a number far beyond any file.
  std::string huge(int value) {
    if (below(16) > 0) return std::to_string(value);
    return one_of({"1000000000", "1000000000000000000", "4611686018427387904", "9223372036854775807"});
  }

  std::string single(int n_leads, const std::string& n_samples) {
    std::string text = "x " + std::to_string(n_leads) + " 250 " + n_samples + "\n", file;
    for (int lead = 0; lead < n_leads; ++lead) {
      if (lead == 0 || below(3) == 0) file = new_file();
      text += file.substr(0, file.find('+'));
      if (below(3) == 0) text += "x" + huge(below(8) + 1);
      if (below(3) == 0) text += ":" + huge(below(30));
      if (file.find('+') != std::string::npos) text += file.substr(file.find('+'));
      text += one_of({"", " 200", " 100(7)/uV 12 3 5 0 0 I", " 0/mV 16 0 -1 77 0 V", " 5/bpm 8 0 9 1 0 I"});
      text += "\n";
    }
    return text;
  }

  // Name, format and byte offset, which the signals of one file share.
  std::string new_file() {
    std::string text = one_of({"a.dat ", "b.dat ", "a.dat ", "b.dat ", "~ "});
    text += text == "~ " ? "0" : one_of({"8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "0", "516"});
    return below(4) == 0 ? text + "+" + huge(below(5)) : text;
  }

  std::mt19937 random_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto target = pqrst::fuzz::target_named(target_name());
  target(std::string(data, data + size));
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  Generator generator(seed);
  if (std::strcmp(target_name(), "records") != 0 || generator.below(4) > 0)
    return LLVMFuzzerMutate(data, size, max_size);
  const std::string input(data, data + size);  // the signal data behind the third separator stays
  std::size_t begin = 0;
  for (int i = 0; i < 3 && begin < size; ++i)
    begin = std::min(input.find(pqrst::fuzz::kSeparator, begin), size - 1) + 1;
  const std::string changed = (generator.headers() + input.substr(std::min(begin, size))).substr(0, max_size);
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}
