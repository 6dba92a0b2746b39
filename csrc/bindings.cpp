// The Python module samplers._native: checks shapes, releases the GIL, goes through the rows.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "isa.h"
#include "penalties.h"
#include "rounding.h"
#include "sampler.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument("samplers._native: " + message);
}

// Lists of different lengths, one a row: row i holds values[offsets[i]] .. values[offsets[i + 1] - 1].
template <typename T>
struct Ragged {
  const T* values;
  const int64_t* offsets;
  std::vector<T> row(size_t i) const { return {values + offsets[i], values + offsets[i + 1]}; }
};

template <typename T>
Ragged<T> ragged(const Array<T>& values, const Array<int64_t>& offsets, py::ssize_t rows, const char* name) {
  require(offsets.size() == rows + 1 && offsets.at(0) == 0 && offsets.at(rows) == values.size(), name);
  for (py::ssize_t i = 0; i < rows; ++i) require(offsets.at(i) <= offsets.at(i + 1), name);
  return {values.data(), offsets.data()};
}

// A batch of rows and all that changes their logits; owns references, so that its pointers stay valid.
class Batch {
 public:
  Batch(Array<float> logits, Array<alea::Params> params, Array<int64_t> bias_ids, Array<float> bias_values,
        Array<int64_t> bias_offsets, std::optional<Array<int64_t>> history, std::optional<Array<int64_t>> history_offsets,
        Array<int64_t> history_start, std::optional<Array<bool>> allowed)
      : logits_(std::move(logits)),
        params_(std::move(params)),
        bias_ids_(std::move(bias_ids)),
        bias_values_(std::move(bias_values)),
        bias_offsets_(std::move(bias_offsets)),
        history_(std::move(history)),
        history_offsets_(std::move(history_offsets)),
        history_start_(std::move(history_start)),
        allowed_(std::move(allowed)) {
    require(logits_.ndim() == 2 && logits_.shape(1) >= 1, "logits must be (B, V)");
    require(params_.size() == 1 || params_.size() == logits_.shape(0), "params must be one or B");
    bias_ = ragged(bias_values_, bias_offsets_, params_.size(), "bias offsets");
    require(bias_ids_.size() == bias_values_.size(), "bias ids and values");
    for (py::ssize_t i = 0; i < bias_ids_.size(); ++i) {
      require(bias_ids_.at(i) >= 0 && bias_ids_.at(i) < logits_.shape(1), "bias ids");
    }
    if (history_) {
      said_ = ragged(*history_, history_offsets_.value(), logits_.shape(0), "history offsets");
      require(history_start_.size() == logits_.shape(0), "history_start must be (B,)");
    }
    if (allowed_) {
      require(allowed_->ndim() == 2 && allowed_->shape(0) == logits_.shape(0) && allowed_->shape(1) == logits_.shape(1),
              "allowed must be (B, V)");
    }
    starts_ = history_start_.data();
    forbidden_ = allowed_ ? allowed_->data() : nullptr;
    first_ = logits_.data();
    first_params_ = params_.data();
    size_ = static_cast<size_t>(logits_.shape(0));
    vocabulary_ = static_cast<size_t>(logits_.shape(1));
    shared_ = params_.size() == 1;
  }

  size_t size() const { return size_; }
  size_t vocabulary() const { return vocabulary_; }
  const float* logits(size_t row) const { return first_ + row * vocabulary_; }
  const alea::Params& params(size_t row) const { return first_params_[shared_ ? 0 : row]; }

  // SPEC.md step 0: the logits themselves, or a copy where something changes them.
  alea::Row row(size_t row, alea::Workspace& work) const {
    const size_t parameters = shared_ ? 0 : row;
    const bool biased = bias_.offsets[parameters] < bias_.offsets[parameters + 1];
    if (!biased && !forbidden_ && !history_) return {logits(row), vocabulary_};
    std::vector<float>& x = work.x;
    x.assign(logits(row), logits(row) + vocabulary_);
    for (int64_t i = bias_.offsets[parameters]; i < bias_.offsets[parameters + 1]; ++i) {
      x[static_cast<size_t>(bias_ids_.data()[i])] += bias_.values[i];
    }
    if (forbidden_) alea::forbid(x, forbidden_ + row * vocabulary_);
    const alea::Params& p = params(row);
    if (history_) alea::penalise(x, said_.row(row), starts_[row], {p.repetition, p.presence, p.frequency});
    return {x.data(), vocabulary_};
  }

 private:
  Array<float> logits_;
  Array<alea::Params> params_;
  Array<int64_t> bias_ids_;
  Array<float> bias_values_;
  Array<int64_t> bias_offsets_;
  std::optional<Array<int64_t>> history_, history_offsets_;
  Array<int64_t> history_start_;
  std::optional<Array<bool>> allowed_;
  Ragged<float> bias_{};
  Ragged<int64_t> said_{};
  const int64_t* starts_;
  const bool* forbidden_;
  const float* first_;
  const alea::Params* first_params_;
  size_t size_, vocabulary_;
  bool shared_;
};

py::tuple sample(const Batch& batch, const Array<uint64_t>& seed, const Array<uint64_t>& position,
                 const Array<uint64_t>& stream, bool details) {
  const size_t size = batch.size();
  for (const auto* numbers : {&seed, &position, &stream}) {
    require(static_cast<size_t>(numbers->size()) == size, "seed, position and stream must be (B,)");
  }
  py::array_t<int64_t> tokens(size), weight(size), total(size);
  py::array_t<int32_t> kept(size);
  py::array_t<float> logprobs(size), model_logprobs(size), entropy(size);
  auto *token = tokens.mutable_data(), *mass = weight.mutable_data(), *sum = total.mutable_data();
  auto* count = kept.mutable_data();
  auto *logprob = logprobs.mutable_data(), *model = model_logprobs.mutable_data(), *nats = entropy.mutable_data();
  const uint64_t *key = seed.data(), *step = position.data(), *request = stream.data();
  {
    py::gil_scoped_release release;
    const alea::DefaultRounding rounding;
    alea::Workspace work;
    for (size_t row = 0; row < size; ++row) {
      const uint64_t bits = alea::random_bits(key[row], step[row], request[row]);
      const alea::Draw draw = alea::sample_row(work, batch.row(row, work), batch.params(row), bits, details);
      token[row] = draw.token;
      mass[row] = draw.weight;
      sum[row] = draw.total;
      count[row] = draw.kept;
      logprob[row] = draw.logprob;
      nats[row] = draw.entropy;
      model[row] = draw.logprob;  // NaN in an invalid row
      if (details && draw.token >= 0) {
        model[row] = alea::model_logprob(work, {batch.logits(row), batch.vocabulary()}, draw.token);
      }
    }
  }
  return py::make_tuple(tokens, weight, total, kept, logprobs, model_logprobs, entropy);
}

// x / T where kept, -inf elsewhere: float32 (B, V), and which rows are valid: bool (B,).
py::tuple filter_logits(const Batch& batch) {
  py::array_t<float> filtered({batch.size(), batch.vocabulary()});
  py::array_t<bool> valid(batch.size());
  float* out = filtered.mutable_data();
  bool* is_valid = valid.mutable_data();
  {
    py::gil_scoped_release release;
    const alea::DefaultRounding rounding;
    alea::Workspace work;
    const alea::Kept& kept = work.kept;
    for (size_t row = 0; row < batch.size(); ++row, out += batch.vocabulary()) {
      std::fill(out, out + batch.vocabulary(), -alea::kInfinity);
      const alea::Params& p = batch.params(row);
      is_valid[row] = alea::keep(work, batch.row(row, work), p);
      for (size_t i = 0; is_valid[row] && i < kept.size(); ++i) {
        const float scaled = (kept.x[i] + 0.0f) / p.temperature;  // -0 counts as 0
        out[kept.ids[i]] = std::clamp(scaled, -alea::kGreatest, alea::kGreatest);
      }
    }
  }
  return py::make_tuple(filtered, valid);
}

// W of every float32 d, by the passes in use.
Array<int64_t> weights(const Array<float>& d) {
  Array<int64_t> w(d.size());
  std::vector<float> same(d.size());
  const alea::DefaultRounding rounding;
  alea::passes().weigh(d.data(), same.size(), 0.0f, 1.0f, same.data(), w.mutable_data());
  return w;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  PYBIND11_NUMPY_DTYPE(alea::Params, temperature, inverse_temperature, repetition, presence, frequency, top_k,
                       min_tokens_to_keep, top_p, min_p, typical_p, epsilon, eta, root_eta, use_top_p, use_min_p,
                       use_typical_p, use_epsilon, use_eta);
  module.attr("params_dtype") = py::dtype::of<alea::Params>();
  py::class_<Batch>(module, "Batch")
      .def(py::init<Array<float>, Array<alea::Params>, Array<int64_t>, Array<float>, Array<int64_t>,
                    std::optional<Array<int64_t>>, std::optional<Array<int64_t>>, Array<int64_t>,
                    std::optional<Array<bool>>>(),
           py::arg("logits").noconvert(), py::arg("params"), py::arg("bias_ids"), py::arg("bias_values"),
           py::arg("bias_offsets"), py::arg("history"), py::arg("history_offsets"), py::arg("history_start"),
           py::arg("allowed"));
  module.def("sample", &sample, py::arg("batch"), py::arg("seed"), py::arg("position"), py::arg("stream"),
             py::arg("details"));
  module.def("filter_logits", &filter_logits, py::arg("batch"));
  module.def("available_isas", &alea::available_isas);
  module.def("isa_in_use", &alea::isa_in_use);
  module.def("use_isa", &alea::use_isa, py::arg("name"), "Force one of available_isas(), or auto; for tests.");
  module.def("weights", &weights, py::arg("d"), "W(d) of float32 d in [-60, 0], one dimension: int64.");
}
