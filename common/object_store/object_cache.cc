#include "common/object_store/object_cache.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/status.h"

namespace uniquanf {
namespace {
constexpr absl::Duration kInterruptPoll = absl::Milliseconds(100);
}  // namespace

ObjectCache::ObjectCache(ObjectCacheOptions options)
    : options_(std::move(options)),
      files_(options_.directory, options_.max_bytes, options_.clock, options_.on_problem) {}

absl::StatusOr<ObjectCache::Piece> ObjectCache::Get(const std::string& id, uint64_t size_bytes,
                                                    uint64_t used_bytes, const Fetch& fetch,
                                                    const StopToken& stop) {
  std::shared_ptr<Flight> flight;
  while (flight == nullptr) {
    absl::MutexLock lock(&mutex_);
    if (Piece piece = FindRecent(id, used_bytes)) return piece;
    std::shared_ptr<Flight>& entry = flights_[id];
    if (entry == nullptr) {
      entry = flight = std::make_shared<Flight>();
      break;
    }
    const std::shared_ptr<Flight> others = entry;
    while (!mutex_.AwaitWithTimeout(absl::Condition(&others->done), kInterruptPoll)) {
      if (!stop.StopRequested()) continue;
      return MakeError(absl::StatusCode::kCancelled, "REQUEST_INTERRUPTED",
                       "waiting for a part of an object was interrupted");
    }
    if (others->piece.ok()) CountHit(used_bytes);
    if (!absl::IsCancelled(others->piece.status())) return others->piece;
  }
  absl::StatusOr<Piece> piece = Piece();
  bool fetched = false;
  if (std::optional<std::string> stored = files_.Get(id, size_bytes)) {
    CountHit(used_bytes);
    piece = std::make_shared<const std::string>(*std::move(stored));
  } else {
    std::string bytes(size_bytes, '\0');
    ++misses_;
    const absl::Status status = fetch(bytes.data());
    fetched = status.ok();
    if (fetched) {
      fetched_bytes_ += size_bytes;
      piece = std::make_shared<const std::string>(std::move(bytes));
    } else {
      piece = status;
    }
  }
  {
    absl::MutexLock lock(&mutex_);
    flight->piece = piece;
    flight->done = true;
    if (piece.ok()) AddRecent(id, *piece);
    if (!fetched) flights_.erase(id);
  }
  if (fetched) {
    // Nobody has to wait for the disk: the flight has the piece until the disk does.
    files_.Put(id, **piece);
    absl::MutexLock lock(&mutex_);
    flights_.erase(id);
  }
  return piece;
}

ObjectCache::Piece ObjectCache::Find(const std::string& id, uint64_t size_bytes,
                                     uint64_t used_bytes) {
  {
    absl::MutexLock lock(&mutex_);
    if (Piece piece = FindRecent(id, used_bytes)) return piece;
  }
  std::optional<std::string> stored = files_.Get(id, size_bytes);
  if (!stored.has_value()) return nullptr;
  CountHit(used_bytes);
  Piece piece = std::make_shared<const std::string>(*std::move(stored));
  absl::MutexLock lock(&mutex_);
  AddRecent(id, piece);
  return piece;
}

ObjectCache::Piece ObjectCache::FindRecent(const std::string& id, uint64_t used_bytes) {
  const auto found = std::find_if(recent_.begin(), recent_.end(),
                                  [&id](const auto& entry) { return entry.first == id; });
  if (found == recent_.end()) return nullptr;
  CountHit(used_bytes);
  recent_.splice(recent_.begin(), recent_, found);
  return recent_.front().second;
}

void ObjectCache::AddRecent(const std::string& id, Piece piece) {
  recent_.emplace_front(id, std::move(piece));
  if (recent_.size() > static_cast<size_t>(options_.num_recent_pieces)) recent_.pop_back();
}

void ObjectCache::CountHit(uint64_t used_bytes) {
  ++hits_;
  hit_bytes_ += used_bytes;
}

void ObjectCache::CountUncached(uint64_t bytes) {
  ++misses_;
  fetched_bytes_ += bytes;
}

ObjectCacheCounts ObjectCache::counts() const {
  return {hits_, misses_, hit_bytes_, fetched_bytes_, files_.counts()};
}

}  // namespace uniquanf
