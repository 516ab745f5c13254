// Named crash points, for tests of what survives `kill -9`. UQ_CRASH_POINT("name") does nothing
// (one load and branch) unless the process was started with
//     UNIQUANF_CRASH_POINT="name"      die at the first hit of that point, or
//     UNIQUANF_CRASH_POINT="name:3"    at the third,
// where dying is SIGKILL to itself: no destructors, no flushing, as from outside. A process that is
// started with a name that is not in kCrashPoints ends at once and says so (exit code 64).
// Thread safety: may be hit from any thread.
#ifndef UNIQUANF_COMMON_BASE_CRASH_POINT_H_
#define UNIQUANF_COMMON_BASE_CRASH_POINT_H_

#include <string>
#include <string_view>

namespace uniquanf {

inline constexpr char kCrashPointVariable[] = "UNIQUANF_CRASH_POINT";

// Every point there is, named component.event: a name that is not here does not compile.
inline constexpr std::string_view kCrashPoints[] = {
    "distill.result_stored",      "finalize.after_manifest",   "finalize.before_manifest",
    "finalize.claimed",           "finalize.shard_copied",     "layer.result_stored",
    "layer.shard_stored",         "local_store.after_rename",  "local_store.before_rename",
    "prepare.text_stored",        "runtime.after_reply",       "runtime.before_reply",
    "s3_writer.after_part",       "s3_writer.before_complete", "store.after_commit",
    "store.before_begin",         "store.before_commit",       "worker.after_report",
    "worker.after_result_stored", "worker.before_report",      "worker.before_task",
};

constexpr bool IsCrashPoint(std::string_view name) {
  for (const std::string_view known : kCrashPoints) {
    if (known == name) return true;
  }
  return false;
}

// A name out of kCrashPoints; how tests say which point they arm.
class CrashPoint {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): lists of literals are lists of points.
  consteval CrashPoint(const char* name) : name_(name) {
    if (!IsCrashPoint(name)) throw "not in kCrashPoints";
  }
  constexpr const char* name() const { return name_; }
  // The value of UNIQUANF_CRASH_POINT that arms its n-th hit.
  std::string At(int nth) const { return name_ + (":" + std::to_string(nth)); }

 private:
  const char* name_;
};

namespace internal {

// Whether the environment armed any point; read once, when the program starts.
extern const bool kCrashPointsArmed;
void HitCrashPoint(const char* name);

}  // namespace internal
}  // namespace uniquanf

#define UQ_CRASH_POINT(name)                                                                 \
  do {                                                                                       \
    static_assert(::uniquanf::IsCrashPoint(name), "add it to kCrashPoints (crash_point.h)"); \
    if (::uniquanf::internal::kCrashPointsArmed) {                                           \
      ::uniquanf::internal::HitCrashPoint(name);                                             \
    }                                                                                        \
  } while (false)

#endif  // UNIQUANF_COMMON_BASE_CRASH_POINT_H_
