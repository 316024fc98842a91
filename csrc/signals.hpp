// The signal files of one header: which there are, whether they are long enough, and their samples as float32.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "array.hpp"
#include "header.hpp"

namespace pqrst {

// Consecutive signals that share a file, sample by sample.
struct Group {
  std::string path;  // "" for a null signal
  int format = 0;
  std::ptrdiff_t byte_offset = 0;
  std::ptrdiff_t samps_per_frame = 0;  // of all signals together
};

// Where each signal of a header is stored.
struct Layout {
  std::vector<Group> groups;
  std::vector<std::size_t> group;     // per signal
  std::vector<std::ptrdiff_t> place;  // per signal: its first sample within a frame of the group
};

// Signal `signal` of the header becomes row `row` of the result. A list of these ascends by signal.
struct SignalRow {
  std::size_t signal;
  std::ptrdiff_t row;
};

Layout lay_out(const Header& header);

// The number of frames, after every file that `rows` need has been found long enough for it. Where the header does not
// give it, it is that of the shortest file. Nothing is allocated before this has passed. `truncated`: null, or a file
// that is too short is no error but a sentence, and the number is that of the shortest file.
std::ptrdiff_t check_length(const Header& header, const Layout& layout, const std::vector<SignalRow>& rows,
                            std::vector<std::string>* truncated = nullptr);

// How many signals of `rows` come from files not yet in `counted`, which they join.
std::ptrdiff_t stored_signals(const Layout& layout, const std::vector<SignalRow>& rows, std::set<std::string>& counted);

// False where the length is unknown, or all checksums are 0 (placeholders).
bool has_checksums(const Header& header);

// Frames [from, to) of `rows` into those from `column` on of the result, which has `per_frame` samples of each: as many
// as all leads have, or 1 for their mean. A sentence is added to `warnings` for each lead with values beyond float32,
// which become NaN; with `verify` also where a checksum is wrong: then [from, to) must be all.
void read_signals(const Header& header, const Layout& layout, const std::vector<SignalRow>& rows,
                  std::ptrdiff_t n_frames, std::ptrdiff_t from, std::ptrdiff_t to, std::ptrdiff_t per_frame,
                  View<float> out, std::ptrdiff_t column, bool verify, std::vector<std::string>& warnings);

// What is said of `n` values of a lead that float32 cannot hold.
std::string beyond_float(const std::string& name, const std::string& lead, std::ptrdiff_t n);

}  // namespace pqrst
