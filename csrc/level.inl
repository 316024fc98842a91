// One SIMD level: every kernel, and the table of them. See kernels.cpp.

namespace pqrst {
namespace PQRST_LEVEL {
namespace {

#include "lanes.inl"
// lanes first
#include "augment.inl"
#include "codes.inl"
#include "correlate.inl"
#include "filter.inl"
#include "resample.inl"
#include "scale.inl"

#define PQRST_TEXT(name) #name
#define PQRST_NAME(name) PQRST_TEXT(name)
const Kernels table = {
    PQRST_NAME(PQRST_LEVEL),
    filter<float, float>,
    filter<float, double>,
    filter<double, double>,
    resample<float, float>,
    resample<double, float>,
    resample<double, double>,
    extent<float>,
    extent<double>,
    moments<float>,
    moments<double>,
    scale<float, float>,
    scale<double, double>,
    scale<double, float>,
    scale<double, Half>,
    turn_frames,
    sum_codes,
    convert_codes,
    correlate,
    dots,
    magnitude,
    ranked<float>,
    ranked<double>,
    random_words,
    add_noise,
    add_wave,
    widen,
};
#undef PQRST_TEXT
#undef PQRST_NAME

}  // namespace
}  // namespace PQRST_LEVEL
}  // namespace pqrst

#undef PQRST_INLINE
#undef PQRST_LEVEL
#undef PQRST_REGISTER_BYTES
#undef PQRST_REGISTERS
#undef PQRST_FMA
