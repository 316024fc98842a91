// A WFDB header file (.hea), parsed as header(5) of the WFDB Applications Guide has it; nothing else is opened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pqrst {

// A signal specification line. The names of the fields are those of the specification.
struct SignalLine {
  std::string file;
  int format = 0;
  std::ptrdiff_t samps_per_frame = 1;
  std::ptrdiff_t skew = 0;  // samples of this signal that precede sample 0
  std::ptrdiff_t byte_offset = 0;
  double adc_gain = 200;     // ADC units per physical unit
  bool calibrated = false;   // false where the header gives no gain, or 0
  double baseline = 0;       // ADC units
  std::string units = "mV";  // as in the header; mV for voltages
  double to_mv = 1;          // times the physical value; 1 for what is no voltage
  std::int64_t initial_value = 0;
  std::optional<std::int64_t> checksum;
  std::string lead;             // the description
  bool has_description = true;  // false: `lead` is the name that the WFDB library makes up
};

struct SegmentLine {
  std::string name;  // `~` is a gap
  std::ptrdiff_t n_samples = 0;
};

struct Header {
  std::string path;
  std::ptrdiff_t n_bytes = 0;  // of the file
  std::string name;            // of the record, as written
  double fs = 250;             // Hz, frames per second
  bool has_fs = false;
  std::ptrdiff_t n_leads = 0;
  std::ptrdiff_t n_samples = 0;  // frames; 0 is unknown
  std::string start_time;        // what follows the number of samples, as written
  std::vector<SignalLine> signals;
  bool multi_segment = false;
  std::vector<SegmentLine> segments;
  std::vector<std::string> comments;
};

// Whether a path ends in `.hea`, in any case.
bool is_header_path(const std::string& path);

// `path` with or without `.hea`.
std::string header_path(const std::string& path);

// `missing`: the message of FileMissing, or "" for the usual one.
Header parse_header(const std::string& path, const std::string& missing = "");

// mV, V, uV, nV in any case, the micro sign included: the factor to mV; 0 for what is no voltage.
double factor_to_mv(const std::string& units);

}  // namespace pqrst
