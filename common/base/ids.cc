#include "common/base/ids.h"

#include <openssl/rand.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/base/random.h"

namespace uniquanf {
namespace {

// 20 characters of 5 bits each. 32 of the 36 characters [0-9a-z] are used, without those that read
// alike (i, l, o, u), as in Crockford's base 32.
std::string Format(absl::string_view prefix, const unsigned char (&random)[20]) {
  static constexpr char kAlphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
  std::string id = absl::StrCat(prefix, "-");
  for (const unsigned char byte : random) id += kAlphabet[byte & 31];
  return id;
}

class RandomIdGenerator : public IdGenerator {
 public:
  std::string NewId(absl::string_view prefix) override {
    unsigned char random[20];
    UQ_CHECK(RAND_bytes(random, sizeof(random)) == 1);
    return Format(prefix, random);
  }
};

class SeededIdGenerator : public IdGenerator {
 public:
  explicit SeededIdGenerator(uint64_t seed) : seed_(seed) {}
  std::string NewId(absl::string_view prefix) override {
    uint64_t stream;
    {
      absl::MutexLock lock(&mutex_);
      stream = num_ids_++;
    }
    unsigned char random[20];
    for (int i = 0; i < 20; ++i) {
      random[i] = static_cast<unsigned char>(PhiloxAt(seed_, stream, i / 4).v[i % 4] >> 27);
    }
    return Format(prefix, random);
  }

 private:
  const uint64_t seed_;
  absl::Mutex mutex_;
  uint64_t num_ids_ = 0;
};

}  // namespace

std::unique_ptr<IdGenerator> NewRandomIdGenerator() {
  return std::make_unique<RandomIdGenerator>();
}

std::unique_ptr<IdGenerator> NewSeededIdGenerator(uint64_t seed) {
  return std::make_unique<SeededIdGenerator>(seed);
}

}  // namespace uniquanf
