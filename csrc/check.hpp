// Whether a record is what its header says, as far as physics tells: the limb leads depend on each other, and the waves
// of a heart have a size. What is found is a doubt to look at, no error: the rows stay what they are.
#pragma once

#include <string>
#include <vector>

#include "record.hpp"

namespace pqrst {

struct Doubt {
  std::string stage;  // leads | amplitude
  std::string reason;
};

// Only leads in mV that are calibrated take part; invalid samples are left out.
//
// Leads: by Einthoven III = II - I, by Goldberger aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2. A record
// that has I, II and one of these with something else in it has leads that are swapped, inverted or of different gain,
// and the reason names the simplest change after which all fit. The relations hold for any three electrodes, so they
// cannot show that two of these were exchanged on the patient (RA with LA: I inverted, II and III swapped, aVR and aVL
// swapped), nor that all leads are inverted, nor one gain that is wrong for all, nor anything about the chest leads.
// With I, II and III alone some changes look the same (I inverted, or II and III swapped): all of them are named.
//
// Amplitude: an ECG from the skin spans about 1-2 mV. Ten or a thousand times as much is a wrong unit or gain; twice as
// much is a patient.
std::vector<Doubt> plausibility(const Record& record);

}  // namespace pqrst
