// The Python module model._native: checks shapes and ranges, releases the GIL, and runs the forward pass.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "angles.h"
#include "forward.h"
#include "packing.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Floats = Array<float>;

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument("model._native: " + message);
}

// float32 numbers, or the bits of float16 or bfloat16 as int16.
alea::Type type_of(const py::array& numbers, const std::string& name) {
  require(name == "float32" || name == "float16" || name == "bfloat16", "type must be a float of 32 or 16 bits");
  const bool is_wide = name == "float32";
  require(py::isinstance<py::array_t<float>>(numbers) == is_wide, name + " must come as float32 or int16");
  require(is_wide || py::isinstance<py::array_t<int16_t>>(numbers), name + " must come as float32 or int16");
  require(numbers.flags() & py::array::c_style, "weights must be contiguous");
  return is_wide ? alea::kFloat32 : name == "float16" ? alea::kFloat16 : alea::kBfloat16;
}

// Far below where a product of sizes would overflow.
void check_size(size_t size) { require(1 <= size && size < size_t{1} << 31, "sizes must be in 1 .. 2^31 - 1"); }

const float* pointer(const Floats& numbers, size_t size, const std::string& name) {
  require(static_cast<size_t>(numbers.size()) == size, name + " must hold " + std::to_string(size) + " numbers");
  return numbers.data();
}

// The weights of a linear layer in panels; the arrays stay Python's.
struct Linear {
  alea::Matrix matrix;
  py::array panels;
  py::object bias;

  Linear(py::array numbers, const std::string& type, size_t outputs, size_t inputs, py::object bias_or_none)
      : panels(std::move(numbers)), bias(std::move(bias_or_none)) {
    matrix.type = type_of(panels, type);
    matrix.outputs = outputs;
    matrix.inputs = inputs;
    check_size(outputs);
    check_size(inputs);
    require(static_cast<size_t>(panels.size()) == alea::panel_size(outputs, inputs), "panels must fit the matrix");
    matrix.panels = panels.data();
    if (!bias.is_none()) {
      const auto converted = py::cast<Floats>(bias);
      matrix.bias = pointer(converted, outputs, "bias");
      bias = converted;
    }
  }

  Floats call(const Floats& x, size_t threads) const {
    require(x.ndim() == 2 && static_cast<size_t>(x.shape(1)) == matrix.inputs, "x must have the matrix's inputs");
    Floats y({x.shape(0), static_cast<py::ssize_t>(matrix.outputs)});
    const float* const from = x.data();
    float* const to = y.mutable_data();
    const py::gil_scoped_release release;
    alea::linear(matrix, from, static_cast<size_t>(x.shape(0)), to, threads);
    return y;
  }
};

// Copies weights [outputs][inputs] into panels, whose memory the caller aligns.
void pack(const py::array& weights, const std::string& type, const py::array& panels) {
  require(weights.ndim() == 2, "weights must have two dimensions");
  alea::Matrix shape;
  shape.type = type_of(weights, type);
  shape.outputs = static_cast<size_t>(weights.shape(0));
  shape.inputs = static_cast<size_t>(weights.shape(1));
  require(type_of(panels, type) == shape.type && panels.writeable(), "panels must be of the weights' type");
  require(static_cast<size_t>(panels.size()) == alea::panel_size(shape.outputs, shape.inputs), "panels must fit");
  void* const to = const_cast<void*>(panels.data());
  if (shape.type == alea::kFloat32) {
    alea::pack(shape, static_cast<const float*>(weights.data()), static_cast<float*>(to));
  } else {
    alea::pack(shape, static_cast<const uint16_t*>(weights.data()), static_cast<uint16_t*>(to));
  }
}

py::array unpack(const Linear& linear) {
  const alea::Matrix& packed = linear.matrix;
  py::array weights(linear.panels.dtype(), {packed.outputs, packed.inputs});
  if (packed.type == alea::kFloat32) {
    alea::unpack(packed, static_cast<float*>(weights.mutable_data()));
  } else {
    alea::unpack(packed, static_cast<uint16_t*>(weights.mutable_data()));
  }
  return weights;
}

// A whole model: its sizes, and pointers into arrays that stay Python's.
class Llama {
 public:
  Llama(size_t heads, size_t shared_heads, size_t head_size, size_t inner, float eps, Floats frequencies,
        py::array rows, const std::string& type, size_t vocabulary, const Linear* tied, Floats norm)
      : rows_(std::move(rows)), norm_(std::move(norm)), vocabulary_(vocabulary) {
    for (const size_t size : {heads, shared_heads, head_size, inner, vocabulary}) check_size(size);
    a_.size = static_cast<size_t>(norm_.size());
    a_.heads = heads;
    a_.shared_heads = shared_heads;
    a_.head_size = head_size;
    a_.inner = inner;
    a_.eps = eps;
    require(shared_heads >= 1 && heads % shared_heads == 0 && head_size % 2 == 0, "heads must be shared evenly");
    require(static_cast<size_t>(frequencies.size()) == head_size / 2, "frequencies must be half a head");
    a_.frequencies.assign(frequencies.data(), frequencies.data() + frequencies.size());
    for (const float frequency : a_.frequencies)
      require(frequency >= 0 && frequency <= 1, "frequencies must be in 0 .. 1");
    a_.is_tied = tied != nullptr;
    if (tied) {
      a_.embedding = tied->matrix;
    } else {
      a_.embedding.type = type_of(rows_, type);
      a_.embedding.panels = rows_.data();
      require(static_cast<size_t>(rows_.size()) == vocabulary * a_.size, "the embedding must have a row a token");
    }
    require(!tied || (tied->matrix.outputs == vocabulary && tied->matrix.inputs == a_.size), "the embedding must fit");
    if (tied) kept_.push_back(tied->panels);
    a_.norm = norm_.data();
  }

  void add_layer(const Linear& qkv, const Linear& out, const Linear& gate_up, const Linear& down, Floats input_norm,
                 Floats post_attention_norm) {
    const auto fits = [](const Linear& linear, size_t outputs, size_t inputs) {
      require(linear.matrix.outputs == outputs && linear.matrix.inputs == inputs, "a layer must fit the sizes");
    };
    fits(qkv, (a_.heads + 2 * a_.shared_heads) * a_.head_size, a_.size);
    fits(out, a_.size, a_.heads * a_.head_size);
    fits(gate_up, 2 * a_.inner, a_.size);
    fits(down, a_.size, a_.inner);
    a_.layers.push_back({qkv.matrix, out.matrix, gate_up.matrix, down.matrix, pointer(input_norm, a_.size, "a norm"),
                         pointer(post_attention_norm, a_.size, "a norm")});
    kept_.insert(kept_.end(), {qkv.panels, qkv.bias, out.panels, out.bias, gate_up.panels, gate_up.bias, down.panels,
                               down.bias, input_norm, post_attention_norm});
  }

  size_t block_size() const { return a_.block_size(); }

  Floats forward(const Array<int64_t>& ids, const Array<int64_t>& sequences, const Array<int64_t>& positions,
                 const Array<int32_t>& table, const std::vector<Floats>& slabs, size_t shift, size_t threads) const {
    const py::ssize_t count = ids.size();
    require(sequences.size() == count && positions.size() == count, "ids, sequences and positions must agree");
    require(table.ndim() == 2, "table must have two dimensions");
    require(shift < 32, "shift must be below 32");
    for (const Floats& slab : slabs) {
      require(slab.writeable() && static_cast<size_t>(slab.size()) == block_size() << shift,
              "a slab must hold 2^shift blocks");
    }
    // The blocks are looked up here, while no other thread of Python can change the table.
    alea::Cache cache{std::vector<float*>(static_cast<size_t>(table.size())), static_cast<size_t>(table.shape(1))};
    std::vector<alea::Token> tokens(static_cast<size_t>(count));
    for (py::ssize_t i = 0; i < count; ++i) {
      const int64_t id = ids.data()[i], sequence = sequences.data()[i], position = positions.data()[i];
      require(0 <= id && id < static_cast<int64_t>(vocabulary_), "ids must be in the vocabulary");
      require(0 <= sequence && sequence < table.shape(0), "sequences must be rows of the table");
      require(0 <= position && position < static_cast<int64_t>(alea::kMostPositions) &&
                  position / static_cast<int64_t>(alea::kSlots) < table.shape(1),
              "positions must be in the table");
      tokens[static_cast<size_t>(i)] = {id, static_cast<size_t>(sequence), static_cast<size_t>(position)};
      if (i + 1 < count && sequences.data()[i + 1] == sequence && positions.data()[i + 1] > position) continue;
      for (int64_t b = 0; b <= position / static_cast<int64_t>(alea::kSlots); ++b) {
        const auto entry = static_cast<size_t>(sequence * table.shape(1) + b);
        cache.blocks[entry] = block(table.data()[entry], slabs, shift);
      }
    }
    Floats out({count, static_cast<py::ssize_t>(a_.size)});
    float* const to = out.mutable_data();
    const py::gil_scoped_release release;
    alea::forward(a_, cache, tokens.data(), tokens.size(), to, threads, [] {
      const py::gil_scoped_acquire python;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();  // Ctrl-C
    });
    return out;
  }

 private:
  float* block(int32_t number, const std::vector<Floats>& slabs, size_t shift) const {
    const auto i = static_cast<size_t>(number);
    require(0 <= number && i >> shift < slabs.size(), "blocks must be in the slabs");
    const size_t place = i & ((size_t{1} << shift) - 1);
    return const_cast<float*>(slabs[i >> shift].data()) + place * block_size();
  }

  alea::Llama a_;
  std::vector<py::object> kept_;  // the memory that a_ points into
  py::array rows_;
  Floats norm_;
  size_t vocabulary_;
};

std::pair<Floats, Floats> angles(const Floats& radians) {
  Floats cos(radians.size()), sin(radians.size());
  for (py::ssize_t i = 0; i < radians.size(); ++i) {
    const alea::Turn turn = alea::turn(radians.data()[i]);
    cos.mutable_data()[i] = turn.cos;
    sin.mutable_data()[i] = turn.sin;
  }
  return {cos, sin};
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  py::class_<Linear>(module, "Linear")
      .def(py::init<py::array, const std::string&, size_t, size_t, py::object>())
      .def("__call__", &Linear::call)
      .def("unpack", &unpack);
  py::class_<Llama>(module, "Llama")
      .def(py::init<size_t, size_t, size_t, size_t, float, Floats, py::array, const std::string&, size_t, const Linear*,
                    Floats>())
      .def("add_layer", &Llama::add_layer, py::arg().noconvert(), py::arg().noconvert(), py::arg().noconvert(),
           py::arg().noconvert(), py::arg().noconvert(), py::arg().noconvert())
      .def_property_readonly("block_size", &Llama::block_size)
      .def("forward", &Llama::forward, py::arg().noconvert(), py::arg().noconvert(), py::arg().noconvert(),
           py::arg().noconvert(), py::arg().noconvert(), py::arg(), py::arg());
  module.def("panel_size", [](size_t outputs, size_t inputs) {
    check_size(outputs);
    check_size(inputs);
    return alea::panel_size(outputs, inputs);
  });
  module.def("pack", &pack);
  module.def("angles", &angles);
  module.def("available_isas", &alea::available_operations);
  module.def("isa_in_use", &alea::operations_in_use);
  module.def("use_isa", [](const std::string& name) {
    require(alea::use_operations(name), "isa must be auto or one of available_isas(), got " + name);
  });
}
