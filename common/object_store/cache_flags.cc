#include "common/object_store/cache_flags.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace uniquanf {

absl::StatusOr<uint64_t> ParseByteSize(absl::string_view text) {
  const absl::string_view given = text;
  double unit = 1;
  constexpr std::pair<absl::string_view, double> kUnits[] = {
      {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  for (const auto& [name, bytes] : kUnits) {
    if (absl::ConsumeSuffix(&text, name)) unit = bytes;
  }
  double number = 0;
  // Digits and a point only: SimpleAtod knows "inf" and "1e9" too.
  const bool plain = !text.empty() && text.find_first_not_of("0123456789.") == text.npos;
  if (!plain || !absl::SimpleAtod(text, &number) || number * unit > 0x1p60 ||
      (unit == 1 && absl::StrContains(text, "."))) {
    return InvalidInput("INVALID_FLAG", absl::StrCat("\"", given,
                                                     "\" is no size; allowed: a number of bytes, "
                                                     "or one with KiB, MiB, GiB or TiB"));
  }
  return static_cast<uint64_t>(number * unit);
}

void CacheFlags::AddTo(FlagSet* flags) {
  flags->Section("Cache");
  flags->String("cache-dir", "DIR", &directory,
                "keeps what is read from s3:// models and working objects on this disk for the "
                "next task or job; may be shared by processes of one user; empty: no cache");
  flags->Custom("cache-size", "SIZE", "32GiB",
                "how large it grows at most, such as 32GiB; the least recently used goes first. "
                "Give it room for a whole model; 0: no cache",
                [this](absl::string_view text) -> absl::Status {
                  UQ_ASSIGN_OR_RETURN(size_bytes, ParseByteSize(text));
                  size_given = true;
                  return absl::OkStatus();
                });
}

absl::Status CacheFlags::Check() const {
  if (!directory.empty() || !size_given || size_bytes == 0) return absl::OkStatus();
  return InvalidInput("INVALID_FLAG", "--cache-size needs --cache-dir DIR");
}

std::shared_ptr<ObjectCache> CacheFlags::Open(int num_readers,
                                              PieceFiles::OnProblem on_problem) const {
  if (directory.empty() || size_bytes == 0) return nullptr;
  ObjectCacheOptions options;
  options.directory = directory;
  options.max_bytes = size_bytes;
  options.num_recent_pieces = std::max(num_readers, options.num_recent_pieces);
  options.on_problem = std::move(on_problem);
  return std::make_shared<ObjectCache>(std::move(options));
}

}  // namespace uniquanf
