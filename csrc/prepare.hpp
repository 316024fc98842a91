// The whole chain, record -> rows: the only implementation, for training and prediction alike.
//
//   read (mV) -> slots by name -> bridge gaps -> band-pass, notch at the record's rate -> resample
//   -> cut -> scale over the valid samples -> padding to 0 -> cast
//
// float64 from the first filter to the last operation, rounded once to float32 and, if asked, from there to float16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "recipe.hpp"
#include "record.hpp"

namespace pqrst {

// A record to prepare: one in memory, which the input owns with others, or a path to read.
struct Input {
  std::shared_ptr<const Record> record;
  std::string path;
};

struct Problem {
  std::ptrdiff_t record;
  std::string stage;  // read | leads | amplitude | filter | rows
  std::string reason;
};

// The rows of one record, in order.
struct Rows {
  std::vector<std::ptrdiff_t> index;    // (n,) of the centre, or of the window within the record
  std::vector<std::int64_t> start;      // (n,) at the record's rate: the first sample, for a beat its centre
  std::vector<std::int64_t> valid;      // (n, 2) [first, last) sample of the row that lies inside the record
  std::vector<std::uint8_t> lead_mask;  // (n, L) 1 where a lead of the record fills the slot
  std::vector<Problem> errors;          // why there are no rows, or fewer
  std::vector<Problem> warnings;
};

// Number of rows of a record, before any is dropped.
std::ptrdiff_t n_rows(const Recipe& recipe, std::ptrdiff_t n_samples, double fs, std::ptrdiff_t n_centers);

// Where the rows of a record or its windows begin, at the record's rate; before any is dropped. Beats lie where their
// centres say: std::invalid_argument.
std::vector<std::int64_t> row_starts(const Recipe& recipe, std::ptrdiff_t n_samples, double fs);

// One entry per input, in order, whatever the number of threads. `centers[i]`: those of record i at its own rate, only
// used for beats. A record that fails ends the call with its exception (the first by order), or with skip_errors is
// listed in its `errors`. The rows themselves, (n, L, length) float16 or float32, are written to where `room_for(most)`
// points, `most` being the number of rows before any is dropped.
std::vector<Rows> prepare(const std::vector<Input>& inputs, const Recipe& recipe,
                          const std::vector<std::vector<std::int64_t>>& centers, int n_threads, bool skip_errors,
                          const std::function<std::byte*(std::ptrdiff_t)>& room_for);

}  // namespace pqrst
