// WFDB annotation files in MIT format, as annot(5) of the WFDB Applications Guide has it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pqrst {

struct Annotations {
  std::vector<std::int64_t> sample;  // in ticks of the file: 1 / fs
  std::vector<std::string> symbol;
  std::vector<int> subtype, chan, num;
  std::vector<std::string> aux;
  double fs = 0;  // Hz, from the file's own note on time resolution; 0 if it has none: then the record's
};

// `path` of the record, with or without `.hea`.
Annotations read_annotations(const std::string& path, const std::string& extension);

}  // namespace pqrst
