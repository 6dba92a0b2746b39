#include "isa.h"

namespace alea {

namespace passes_generic {
extern const Passes kPasses;
}
#if defined(__x86_64__)
namespace passes_avx2 {
extern const Passes kPasses;
}
namespace passes_avx512 {
extern const Passes kPasses;
}
#endif

namespace {

struct Isa {
  std::string name;
  const Passes* passes;
};

std::vector<Isa> find() {
  std::vector<Isa> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    found.push_back({"avx512", &passes_avx512::kPasses});
  }
  if (__builtin_cpu_supports("avx2")) found.push_back({"avx2", &passes_avx2::kPasses});
#endif
  found.push_back({"generic", &passes_generic::kPasses});
  return found;
}

const std::vector<Isa>& all() {
  static const std::vector<Isa> found = find();
  return found;
}

const Isa*& chosen() {
  static const Isa* isa = &all().front();
  return isa;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : all()) names.push_back(isa.name);
  return names;
}

bool use_isa(const std::string& name) {
  for (const Isa& isa : all()) {
    if (isa.name != name && name != "auto") continue;
    chosen() = &isa;
    return true;
  }
  return false;
}

std::string isa_in_use() { return chosen()->name; }

const Passes& passes() { return *chosen()->passes; }

}  // namespace alea
