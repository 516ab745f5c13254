#include "tests/support/mutator.h"

#include <algorithm>

#include "common/base/random.h"

namespace uniquanf {

std::string Mutate(const std::string& input, const std::vector<std::string>& dictionary,
                   uint64_t seed, uint64_t round) {
  uint64_t counter = 0;
  const auto below = [&](size_t bound) -> size_t {
    return bound == 0 ? 0 : PhiloxAt(seed, round, counter++).v[0] % bound;
  };
  std::string data = input;
  const size_t num_mutations = 1 + below(8);
  for (size_t i = 0; i < num_mutations; ++i) {
    const size_t at = below(data.size());
    const size_t length = std::min(data.size() - at, 1 + below(16));
    switch (below(8)) {
      case 0:
        if (!data.empty()) data[at] ^= static_cast<char>(1 << below(8));
        break;
      case 1:
        if (!data.empty()) data[at] = static_cast<char>(below(256));
        break;
      case 2:
        data.erase(at, length);
        break;
      case 3:
        data.insert(at, data.substr(at, length));
        break;
      case 4:
        data.resize(at);
        break;
      case 5:
        std::swap_ranges(data.begin() + at, data.begin() + at + length / 2,
                         data.begin() + at + length / 2);
        break;
      case 6:
        if (!dictionary.empty()) data.insert(at, dictionary[below(dictionary.size())]);
        break;
      default:
        if (!dictionary.empty()) {
          const std::string& word = dictionary[below(dictionary.size())];
          data.replace(at, std::min(word.size(), data.size() - at), word);
        }
    }
  }
  return data;
}

std::vector<std::string> JsonDictionary() {
  return {"{",    "}",     "[",          "]",         "\"",
          ":",    ",",     "null",       "true",      "-1",
          "0",    "1e999", "4294967296", "NaN",       "18446744073709551615",
          "\\u0", "\xff",  "\"\":",      "-9.5e-324", "9223372036854775808"};
}

}  // namespace uniquanf
