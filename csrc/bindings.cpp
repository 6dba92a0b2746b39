// The Python module samplers._native: checks shapes and types, releases the GIL, goes through the rows.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "isa.h"
#include "penalties.h"
#include "rounding.h"
#include "sampler.h"
#include "threads.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument("samplers._native: " + message);
}

// Lists of different lengths, one a row: row i holds values[offsets[i]] .. values[offsets[i + 1] - 1].
template <typename T>
class Ragged {
 public:
  Ragged(Array<T> values, Array<int64_t> offsets, const std::string& name)
      : values_(std::move(values)), offsets_(std::move(offsets)) {
    require(values_.ndim() == 1 && offsets_.ndim() == 1, name + " must have one dimension");
    require(offsets_.size() >= 1 && offsets_.at(0) == 0 && offsets_.at(rows()) == values_.size(), name + " offsets");
    for (py::ssize_t i = 0; i < rows(); ++i) require(offsets_.at(i) <= offsets_.at(i + 1), name + " offsets");
    begin_ = values_.data();
    first_ = offsets_.data();
  }

  py::ssize_t rows() const { return offsets_.size() - 1; }
  std::vector<T> all() const { return {begin_, begin_ + values_.size()}; }
  const T* begin(size_t i) const { return begin_ + first_[i]; }
  const T* end(size_t i) const { return begin_ + first_[i + 1]; }

 private:
  Array<T> values_;
  Array<int64_t> offsets_;
  const T* begin_;
  const int64_t* first_;
};

// The logits (B, V): float32, float16, or the bits of bfloat16 as int16; read in place where the
// logits of a row lie side by side, else a copy of them.
class Logits {
 public:
  explicit Logits(py::array logits) : logits_(std::move(logits)) {
    require(logits_.ndim() == 2 && logits_.shape(1) >= 1 && logits_.shape(1) <= py::ssize_t{1} << 20,
            "logits must be (B, V)");
    const char kind = logits_.dtype().kind();
    const py::ssize_t size = logits_.itemsize();
    require((kind == 'f' && (size == 4 || size == 2)) || (kind == 'i' && size == 2), "logits must be of a known type");
    type_ = kind == 'i' ? alea::kBfloat16 : size == 4 ? alea::kFloat32 : alea::kFloat16;
    const bool side_by_side = logits_.shape(1) == 1 || logits_.strides(1) == size;
    if (!side_by_side || !(logits_.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
      logits_ = py::array::ensure(logits_, py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_);
      require(static_cast<bool>(logits_), "logits can't be copied");
    }
    first_ = static_cast<const char*>(logits_.data());
    stride_ = logits_.strides(0);
    passes_ = &alea::passes(type_);
  }

  size_t rows() const { return static_cast<size_t>(logits_.shape(0)); }
  size_t vocabulary() const { return static_cast<size_t>(logits_.shape(1)); }
  alea::Row row(size_t i) const { return {first_ + static_cast<py::ssize_t>(i) * stride_, vocabulary_(), passes_}; }

 private:
  size_t vocabulary_() const { return static_cast<size_t>(logits_.shape(1)); }

  py::array logits_;
  alea::Type type_;
  const char* first_;
  py::ssize_t stride_;
  const alea::Passes* passes_;
};

// The parameters of one row or of each; laid out once, used at every step.
class Parameters {
 public:
  explicit Parameters(Array<alea::Params> rows) : rows_(std::move(rows)), first_(rows_.data()), size_(rows_.size()) {
    require(rows_.ndim() == 1, "params must be one or B");
  }

  py::ssize_t size() const { return size_; }
  const alea::Params& operator[](size_t i) const { return first_[i]; }

 private:
  Array<alea::Params> rows_;
  const alea::Params* first_;
  py::ssize_t size_;
};

// What changes the logits of a batch (SPEC.md step 0); owns what it points to.
class Changes {
 public:
  Changes(Array<int64_t> bias_ids, Array<float> bias_values, Array<int64_t> bias_offsets,
          std::optional<Array<int64_t>> history, std::optional<Array<int64_t>> history_offsets,
          Array<int64_t> history_start, std::optional<Array<bool>> allowed)
      : bias_ids_(std::move(bias_ids), bias_offsets, "bias"),
        bias_(std::move(bias_values), std::move(bias_offsets), "bias"),
        history_start_(std::move(history_start)),
        allowed_(std::move(allowed)) {
    require(bias_ids_.all().size() == bias_.all().size() && bias_ids_.rows() == bias_.rows(), "bias ids and values");
    if (history) {
      require(history_offsets.has_value(), "history offsets");
      history_.emplace(std::move(*history), std::move(*history_offsets), "history");
      require(history_start_.ndim() == 1 && history_start_.size() == history_->rows(), "history_start must be (B,)");
      starts_ = history_start_.data();
    }
    if (allowed_) may_ = allowed_->data();
  }

  void check(const Logits& logits, py::ssize_t parameters) const {
    const auto rows = static_cast<py::ssize_t>(logits.rows()), vocabulary = static_cast<py::ssize_t>(logits.vocabulary());
    require(bias_.rows() == parameters, "bias must have a list for each of the parameters");
    for (const int64_t id : bias_ids_.all()) require(id >= 0 && id < vocabulary, "bias ids");
    require(!history_ || history_->rows() == rows, "history must be (B, ...)");
    require(!allowed_ || (allowed_->ndim() == 2 && allowed_->shape(0) == rows && allowed_->shape(1) == vocabulary),
            "allowed must be (B, V)");
  }

  // The logits of a row, as they are or as a copy in which something is changed.
  alea::Row row(alea::Row row, size_t i, size_t parameters, const alea::Params& p, alea::Workspace& work) const {
    const int64_t* const ids = bias_ids_.begin(parameters);
    const auto biased = static_cast<size_t>(bias_ids_.end(parameters) - ids);
    if (biased == 0 && !history_ && !allowed_) return row;
    alea::Buffer<float>& x = work.x;
    x.resize(row.n);
    row.passes->widen(row.x, row.n, x.data());
    for (size_t j = 0; j < biased; ++j) x[static_cast<size_t>(ids[j])] += bias_.begin(parameters)[j];
    if (allowed_) alea::forbid(x, may_ + i * row.n);
    if (history_) {
      const std::vector<int64_t> said(history_->begin(i), history_->end(i));
      alea::penalise(x, said, starts_[i], {p.repetition, p.presence, p.frequency});
    }
    return {x.data(), row.n, &alea::passes(alea::kFloat32)};
  }

 private:
  Ragged<int64_t> bias_ids_;
  Ragged<float> bias_;
  Array<int64_t> history_start_;
  std::optional<Array<bool>> allowed_;
  std::optional<Ragged<int64_t>> history_;
  const int64_t* starts_ = nullptr;
  const bool* may_ = nullptr;
};

// The rows of a call with their parameters and changes, checked against one another.
class Batch {
 public:
  Batch(py::array logits, const Parameters& params, const Changes* changes)
      : logits_(std::move(logits)), params_(params), changes_(changes), shared_(params.size() == 1) {
    require(shared_ || static_cast<size_t>(params_.size()) == size(), "params must be one or B");
    if (changes_) changes_->check(logits_, params_.size());
  }

  size_t size() const { return logits_.rows(); }
  size_t vocabulary() const { return logits_.vocabulary(); }
  const alea::Params& params(size_t i) const { return params_[shared_ ? 0 : i]; }
  alea::Row untouched(size_t i) const { return logits_.row(i); }
  alea::Row row(size_t i, alea::Workspace& work) const {
    return changes_ ? changes_->row(logits_.row(i), i, shared_ ? 0 : i, params(i), work) : logits_.row(i);
  }

 private:
  Logits logits_;
  const Parameters& params_;
  const Changes* changes_;
  bool shared_;
};

// One number for all rows, one for each, or none: the number of the row.
class Column {
 public:
  using Given = std::optional<std::variant<int64_t, Array<int64_t>>>;

  Column(const Given& given, size_t rows) {
    if (!given) return;
    if (const auto* one = std::get_if<int64_t>(&*given)) {
      one_ = *one;
      step_ = 0;
      return;
    }
    const auto& array = std::get<Array<int64_t>>(*given);
    require(array.ndim() == 1 && (array.size() == 1 || static_cast<size_t>(array.size()) == rows),
            "seed, position and stream must be one or (B,)");
    many_ = array.data();
    step_ = array.size() == 1 ? 0 : 1;
  }

  uint64_t operator[](size_t row) const {
    return static_cast<uint64_t>(many_ ? many_[row * step_] : one_ + static_cast<int64_t>(row * step_));
  }

 private:
  const int64_t* many_ = nullptr;
  int64_t one_ = 0;
  size_t step_ = 1;
};

py::tuple sample(py::array logits, const Parameters& params, const Changes* changes, const Column::Given& seed,
                 const Column::Given& position, const Column::Given& stream, bool details, size_t threads) {
  const Batch batch(std::move(logits), params, changes);
  const size_t size = batch.size();
  const Column key(seed, size), step(position, size), request(stream, size);
  py::array_t<int64_t> tokens(size), weight(size), total(size);
  py::array_t<int32_t> kept(size);
  py::array_t<float> logprobs(size);
  std::optional<py::array_t<float>> model_logprobs, entropy;
  if (details) {
    model_logprobs.emplace(size);
    entropy.emplace(size);
  }
  auto *token = tokens.mutable_data(), *mass = weight.mutable_data(), *sum = total.mutable_data();
  auto* count = kept.mutable_data();
  auto* logprob = logprobs.mutable_data();
  auto* model = details ? model_logprobs->mutable_data() : nullptr;
  auto* nats = details ? entropy->mutable_data() : nullptr;
  std::atomic<bool> valid{true};
  const py::gil_scoped_release release;
  alea::for_rows(size, batch.vocabulary(), threads, [&](size_t row, alea::Workspace& work) {
    const uint64_t bits = alea::random_bits(key[row], step[row], request[row]);
    const alea::Draw draw = alea::sample_row(work, batch.row(row, work), batch.params(row), bits, details);
    token[row] = draw.token;
    mass[row] = draw.weight;
    sum[row] = draw.total;
    count[row] = draw.kept;
    logprob[row] = draw.logprob;
    if (draw.token < 0) valid = false;
    if (!details) return;
    nats[row] = draw.entropy;
    model[row] = draw.token < 0 ? draw.logprob : alea::model_logprob(work, batch.untouched(row), draw.token);
  });
  const py::gil_scoped_acquire acquire;
  return py::make_tuple(tokens, weight, total, kept, logprobs, model_logprobs, entropy, valid.load());
}

// x / T where kept, -inf elsewhere: float32 (B, V), and which rows are valid: bool (B,).
py::tuple filter_logits(py::array logits, const Parameters& params, const Changes* changes, size_t threads) {
  const Batch batch(std::move(logits), params, changes);
  const size_t vocabulary = batch.vocabulary();
  py::array_t<float> filtered({batch.size(), vocabulary});
  py::array_t<bool> valid(batch.size());
  float* const first = filtered.mutable_data();
  bool* const is_valid = valid.mutable_data();
  const py::gil_scoped_release release;
  alea::for_rows(batch.size(), vocabulary, threads, [&](size_t row, alea::Workspace& work) {
    float* const out = first + row * vocabulary;
    std::fill(out, out + vocabulary, -alea::kInfinity);
    const alea::Params& p = batch.params(row);
    is_valid[row] = alea::keep(work, batch.row(row, work), p);
    const alea::Kept& kept = work.kept;
    for (size_t i = 0; is_valid[row] && i < kept.size(); ++i) {
      const float scaled = (kept.x[i] + 0.0f) / p.temperature;  // -0 counts as 0
      out[kept.ids[i]] = std::clamp(scaled, -alea::kGreatest, alea::kGreatest);
    }
  });
  const py::gil_scoped_acquire acquire;
  return py::make_tuple(filtered, valid);
}

// W of every float32 d, by the passes in use.
Array<int64_t> weights(const Array<float>& d) {
  require(d.ndim() == 1, "d must have one dimension");
  Array<int64_t> w(d.size());
  std::vector<float> same(static_cast<size_t>(d.size()));
  const alea::DefaultRounding rounding;
  alea::passes(alea::kFloat32).weigh(d.data(), same.size(), 0.0f, 1.0f, same.data(), w.mutable_data());
  return w;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  PYBIND11_NUMPY_DTYPE(alea::Params, temperature, inverse_temperature, repetition, presence, frequency, unused, top_k,
                       min_tokens_to_keep, top_p, min_p, typical_p, epsilon, eta, root_eta);
  py::class_<Parameters>(module, "Parameters").def(py::init<Array<alea::Params>>(), py::arg("rows"));
  py::class_<Changes>(module, "Changes")
      .def(py::init<Array<int64_t>, Array<float>, Array<int64_t>, std::optional<Array<int64_t>>,
                    std::optional<Array<int64_t>>, Array<int64_t>, std::optional<Array<bool>>>(),
           py::arg("bias_ids"), py::arg("bias_values"), py::arg("bias_offsets"), py::arg("history"),
           py::arg("history_offsets"), py::arg("history_start"), py::arg("allowed"));
  module.def("sample", &sample, py::arg("logits"), py::arg("params"), py::arg("changes"), py::arg("seed"),
             py::arg("position"), py::arg("stream"), py::arg("details"), py::arg("threads"));
  module.def("filter_logits", &filter_logits, py::arg("logits"), py::arg("params"), py::arg("changes"),
             py::arg("threads"));
  module.def("available_isas", &alea::available_isas);
  module.def("isa_in_use", &alea::isa_in_use);
  module.def("use_isa", &alea::use_isa, py::arg("name"), "Force one of available_isas(), or auto; for tests.");
  module.def("weights", &weights, py::arg("d"), "W(d) of float32 d in [-60, 0], one dimension: int64.");
}
