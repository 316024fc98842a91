// WFDB annotation files in MIT format, as annot(5) of the WFDB Applications Guide has it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pqrst {

struct Annotations {
  std::vector<std::int64_t> sample;  // of the record
  std::vector<std::string> symbol;
  std::vector<int> subtype, chan, num;
  std::vector<std::string> aux;
  double fs = 0;  // Hz, from the file's own note on time resolution; 0 if it has none: then the record's frames
};

// `path` of the record, with or without `.hea`. Positions are converted from the file's own resolution, or from frames,
// to samples of the record at `fs`; 0: those that reading all of its leads gives. Half a sample is rounded up. Without
// a header they stay as they are.
Annotations read_annotations(const std::string& path, const std::string& extension, double fs = 0);

}  // namespace pqrst
