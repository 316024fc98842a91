// What leads are called, and which lead fills which slot.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace pqrst {

// A name as all spellings of it compare: `ECG I`, `ecg_i`, `Lead I (Einthoven)`, `MDC_ECG_LEAD_I`, `I (mV)` and `DI`
// are `i`; `-aVR` is `-avr`.
std::string plain_name(std::string name);

// Whether a lead is recorded with its sign turned, as `-aVR` is.
bool is_negated(const std::string& name);

// For each slot the record's lead that fills it, or -1. Slots choose in order, each the first of its accepted names
// that is left. A lead with its sign turned fills a slot for which there is no other.
std::vector<std::ptrdiff_t> match_leads(const std::vector<std::vector<std::string>>& slots,
                                        const std::vector<std::string>& leads);

}  // namespace pqrst
