#include "tests/fault/chaos_plan.h"

#include <random>

namespace uniquanf {
namespace {

constexpr uint64_t kPlanSeed = 0x9E3779B97F4A7C15;
constexpr double kPostgresShare = 0.4, kLossShare = 0.3;
// Between actions, and before the first. An undisturbed job takes half a second on files, several
// on S3.
constexpr absl::Duration kMaxServiceGap = absl::Milliseconds(500);
constexpr absl::Duration kMaxStoreGap = absl::Seconds(2);
constexpr absl::Duration kMaxDatabaseDowntime = absl::Seconds(2);
constexpr absl::Duration kMaxStoreDowntime = absl::Seconds(1);
constexpr absl::Duration kMinStop = absl::Milliseconds(500);
constexpr absl::Duration kMinLossTime = absl::Milliseconds(200), kMaxLossTime = absl::Seconds(2);
// A server that stands still loses its session after 5 s, and another takes over.
constexpr absl::Duration kMaxStop = absl::Seconds(8);

class Draws {
 public:
  explicit Draws(uint64_t seed) : random_(seed ^ kPlanSeed) {}
  double Uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }
  int Below(int limit) { return static_cast<int>(random_() % static_cast<uint64_t>(limit)); }
  absl::Duration Between(absl::Duration low, absl::Duration high) {
    return low + (high - low) * Uniform();
  }

 private:
  std::mt19937_64 random_;
};

PlannedAction DrawForPostgres(Draws* draws, absl::Duration at) {
  using Kind = PlannedAction::Kind;
  const int server = draws->Below(ChaosPlan::kNumServers);
  const double kind = draws->Uniform();
  const double length = draws->Uniform();
  if (kind < 0.4) return {Kind::kKillDatabase, at, length * kMaxDatabaseDowntime, 0};
  if (kind < 0.65) return {Kind::kKillServer, at, absl::ZeroDuration(), server};
  if (kind < 0.88) {
    return {Kind::kStopServer, at, kMinStop + length * (kMaxStop - kMinStop), server};
  }
  return {Kind::kEndServer, at, absl::ZeroDuration(), server};
}

}  // namespace

ChaosPlan DrawPlan(uint64_t seed) {
  Draws draws(seed);
  ChaosPlan plan;
  plan.on_postgres = draws.Uniform() < kPostgresShare;
  const int num_postgres = 1 + draws.Below(5), num_s3 = draws.Below(3);
  absl::Duration at;
  for (int i = 0; i < num_postgres; ++i) {
    at += draws.Between(absl::ZeroDuration(), kMaxServiceGap);
    plan.with_postgres.push_back(DrawForPostgres(&draws, at));
  }
  at = absl::ZeroDuration();
  for (int i = 0; i < num_s3; ++i) {
    at += draws.Between(absl::ZeroDuration(), kMaxStoreGap);
    plan.with_s3.push_back({PlannedAction::Kind::kKillStore, at,
                            draws.Between(absl::ZeroDuration(), kMaxStoreDowntime), 0});
  }
  if (draws.Uniform() < kLossShare) {
    plan.lose_result_at = draws.Between(kMinLossTime, kMaxLossTime);
  }
  return plan;
}

}  // namespace uniquanf
