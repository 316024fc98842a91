#include "leads.hpp"

#include <array>
#include <cstring>

namespace pqrst {
namespace {

constexpr std::array<const char*, 5> prefixes = {"mdc ecg lead ", "mdc ecg elec potl ", "ecg ", "ekg ", "lead "};

void trim(std::string& text) {
  text.erase(0, text.find_first_not_of(' '));
  text.erase(text.find_last_not_of(' ') + 1);
}

// What a last pair of brackets holds is a unit or a remark.
void drop_remark(std::string& text) {
  if (text.empty() || (text.back() != ')' && text.back() != ']')) return;
  const std::size_t open = text.rfind(text.back() == ')' ? '(' : '[');
  if (open == std::string::npos || open == 0) return;
  text.erase(open);
  trim(text);
}

}  // namespace

std::string plain_name(std::string name) {
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '_' || c == '\t') c = ' ';
  }
  trim(name);
  drop_remark(name);
  for (const char* prefix : prefixes)
    if (name.compare(0, std::strlen(prefix), prefix) == 0) {
      name.erase(0, std::strlen(prefix));
      trim(name);
    }
  // Einthoven's leads as the Romance languages write them
  if (name == "di" || name == "d1") return "i";
  if (name == "dii" || name == "d2") return "ii";
  if (name == "diii" || name == "d3") return "iii";
  return name;
}

bool is_negated(const std::string& name) {
  if (name.find('-') == std::string::npos) return false;
  const std::string plain = plain_name(name);
  return plain.size() > 1 && plain.front() == '-';
}

std::vector<std::ptrdiff_t> match_leads(const std::vector<std::vector<std::string>>& slots,
                                        const std::vector<std::string>& leads) {
  std::vector<std::ptrdiff_t> chosen(slots.size(), -1);
  std::vector<char> taken(leads.size(), 0);
  std::vector<std::string> names;
  for (const auto& lead : leads) names.push_back(plain_name(lead));
  const auto take = [&](std::size_t slot, const std::string& wanted) {
    for (std::size_t lead = 0; lead < leads.size() && chosen[slot] < 0; ++lead)
      if (!taken[lead] && names[lead] == wanted) {
        chosen[slot] = static_cast<std::ptrdiff_t>(lead);
        taken[lead] = 1;
      }
  };
  for (const char* sign : {"", "-"})
    for (std::size_t slot = 0; slot < slots.size(); ++slot)
      for (const std::string& name : slots[slot])
        if (chosen[slot] < 0) take(slot, sign + plain_name(name));
  return chosen;
}

}  // namespace pqrst
