// Predicts a recording with the signal chain and libtorch alone: no Python. See examples/native.py.
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <exception>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "prepare.hpp"

namespace {

using Metadata = std::unordered_map<std::string, std::string>;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

std::vector<double> numbers(const std::string& text) {
  std::vector<double> values;
  for (const std::string& part : split(text, '\n')) values.push_back(std::stod(part));
  return values;
}

// The recipe as `Recipe.chain()` of recipe.py gives it: a record longer than its row gives the windows that cover it.
pqrst::Recipe recipe_of(const Metadata& said) {
  const auto of = [&](const char* key) { return said.at(std::string("recipe.") + key); };
  const auto samples_of = [&](const std::string& seconds) {
    return std::llround(std::stod(seconds) * std::stod(of("fs")));
  };
  pqrst::Recipe recipe;
  recipe.fs = std::stod(of("fs"));
  recipe.half = of("dtype") == "float16";
  for (const std::string& slot : split(of("leads"), '\n')) recipe.leads.push_back(split(slot, '\t'));
  recipe.missing_is_error = of("missing") == "error";
  recipe.max_gap_s = std::stod(of("gaps.max_s"));
  recipe.max_gap_fraction = std::stod(of("gaps.max_fraction"));
  if (said.count("recipe.bandpass.order"))
    recipe.bandpass = {std::stod(of("bandpass.low_hz")), std::stod(of("bandpass.high_hz")),
                       std::stoi(of("bandpass.order"))};
  if (!of("notch_hz").empty()) recipe.notch_hz = std::stod(of("notch_hz"));
  recipe.kind = of("window.kind") == "window" ? pqrst::Recipe::Kind::window : pqrst::Recipe::Kind::whole;
  recipe.length = of("window.samples").empty() ? samples_of(of("window.length_s")) : std::stoll(of("window.samples"));
  recipe.overlap = samples_of(of("window.overlap_s"));
  recipe.scale = of("scale.kind") == "zscore"   ? pqrst::Recipe::Scale::zscore
                 : of("scale.kind") == "minmax" ? pqrst::Recipe::Scale::minmax
                                                : pqrst::Recipe::Scale::none;
  recipe.over = of("scale.over") == "lead"     ? pqrst::Recipe::Over::lead
                : of("scale.over") == "record" ? pqrst::Recipe::Over::record
                                               : pqrst::Recipe::Over::dataset;
  recipe.center = numbers(of("scale.center"));
  recipe.spread = numbers(of("scale.spread"));
  check(recipe);
  return recipe;
}

void predict(const char* model_path, const char* record_path) {
  torch::inductor::AOTIModelPackageLoader model(model_path);
  const Metadata said = model.get_metadata();
  const pqrst::Recipe recipe = recipe_of(said);
  pqrst::Input input;
  input.path = record_path;
  std::vector<std::byte> memory;
  const auto n_leads = static_cast<std::ptrdiff_t>(recipe.leads.size());
  const auto room_for = [&](std::ptrdiff_t n) {
    memory.resize(n * n_leads * recipe.length * (recipe.half ? 2 : 4));
    return memory.data();
  };
  pqrst::Rows rows = pqrst::prepare({input}, recipe, {}, 1, false, room_for)[0];
  for (const pqrst::Problem& warning : rows.warnings) std::fprintf(stderr, "warning: %s\n", warning.reason.c_str());
  for (const pqrst::Problem& error : rows.errors) throw std::runtime_error(error.reason);

  const auto n = static_cast<std::int64_t>(rows.start.size());
  const at::Tensor signal =
      at::from_blob(memory.data(), {n, n_leads, recipe.length}, recipe.half ? at::kHalf : at::kFloat).to(at::kFloat);
  const at::Tensor valid = at::from_blob(rows.valid.data(), {n, 2}, at::kLong);
  std::vector<at::Tensor> inputs;
  for (const std::string& name : split(said.at("inputs"), '\n')) inputs.push_back(name == "signal" ? signal : valid);
  const at::Tensor z = model.run(inputs)[0].to(at::kDouble) / std::stod(said.at("temperature"));  // (n, K)
  const at::Tensor of_windows = said.at("task") == "multiclass" ? z.softmax(1) : z.sigmoid();
  // the windows of a record are one, each weighing what it holds of the record
  const at::Tensor inside = (valid.select(1, 1) - valid.select(1, 0)).to(at::kDouble);
  const at::Tensor scores = inside.matmul(of_windows) / inside.sum();
  const std::vector<std::string> classes = split(said.at("classes"), '\n');
  const std::vector<double> thresholds = numbers(said.at("thresholds"));  // empty: the largest score decides
  for (std::size_t k = 0; k < classes.size(); ++k) {
    const auto score = scores[static_cast<std::int64_t>(k)].item<double>();
    const bool found = thresholds.empty() ? score == scores.max().item<double>() : score >= thresholds[k];
    std::printf("%-12s %.6f%s\n", classes[k].c_str(), score, found ? " found" : "");
  }
  std::printf("%s\n", said.at("notice").c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: predict MODEL.pt2 RECORD.hea\n");
    return 2;
  }
  try {
    predict(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
