// replay FOLDER: every file of FOLDER/records and FOLDER/annotations through its target, for any compiler.

#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "targets.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: replay FOLDER\n";
    return 2;
  }
  int n_inputs = 0;
  for (const char* name : {"records", "annotations"})
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(argv[1]) / name)) {
      std::cout << entry.path().string() << std::endl;  // the last one is the one that ends the program
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string input(std::istreambuf_iterator<char>(file), {});
      try {
        pqrst::fuzz::target_named(name)(input);
      } catch (const std::exception& error) {
        std::cerr << entry.path() << ": undocumented exception: " << error.what() << "\n";
        return 1;
      }
      ++n_inputs;
    }
  std::cout << n_inputs << " inputs replayed, nothing found\n";
  return n_inputs == 0;
}
