// The part of DLPack 1.x through which torch shows its tensors to C and makes tensors of memory that C owns: a table of
// functions, found at run time, so that nothing links against torch. https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <cstdint>

namespace dlpack {

constexpr const char* kAttribute = "__dlpack_c_exchange_api__";  // of torch.Tensor, from torch 2.10 on
constexpr const char* kCapsule = "dlpack_exchange_api";          // the name of the capsule in it
constexpr uint32_t kMajorVersion = 1;                            // of the structures below

enum DeviceType : int32_t { kCpu = 1 };
enum TypeCode : uint8_t { kInt = 0, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Tensor {
  void* data;
  DeviceType device;
  int32_t device_number;
  int32_t dimensions;
  TypeCode code;
  uint8_t bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct ManagedTensor {
  uint32_t major_version, minor_version;
  void* manager;
  void (*deleter)(ManagedTensor*);
  uint64_t flags;
  Tensor tensor;
};

struct Exchange {
  uint32_t major_version, minor_version;
  void* previous;
  void* allocate;
  void* managed_from_object;
  // Makes a Python object of a tensor and takes it over. 0, or -1 with a Python error.
  int (*to_object)(ManagedTensor* tensor, void** object);
  // Shows the tensor of a Python object, for as long as the object lives and is not changed. 0, or -1 with an error.
  int (*view)(void* object, Tensor* tensor);
  void* current_stream;
};

}  // namespace dlpack
