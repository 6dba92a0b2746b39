// Functions compiled once for each instruction set, and the choice among them: the best set of this processor, or one
// that a test selects.
#pragma once

#include <string>
#include <vector>

namespace alea {

template <typename Functions>
class ByIsa {
 public:
  // What was compiled for each set; null where the platform has no such set.
  ByIsa(const Functions* avx512, const Functions* avx2, const Functions* generic) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
      available_.push_back({"avx512", avx512});
    }
    if (avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) available_.push_back({"avx2", avx2});
#endif
    available_.push_back({"generic", generic});
    in_use_ = &available_.front();
  }

  // Best first.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const Isa& isa : available_) names.push_back(isa.name);
    return names;
  }

  // Selects "auto" or an available one; false for any other name.
  bool use(const std::string& name) {
    for (const Isa& isa : available_) {
      if (isa.name != name && name != "auto") continue;
      in_use_ = &isa;
      return true;
    }
    return false;
  }

  std::string name() const { return in_use_->name; }
  const Functions* get() const { return in_use_->functions; }

 private:
  struct Isa {
    std::string name;
    const Functions* functions;
  };
  std::vector<Isa> available_;
  const Isa* in_use_;
};

}  // namespace alea
