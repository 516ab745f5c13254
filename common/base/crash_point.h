// Named crash points, for tests of what survives `kill -9`. UQ_CRASH_POINT("name") does nothing
// (one load and branch) unless the process was started with
//     UNIQUANF_CRASH_POINT="name"      die at the first hit of that point, or
//     UNIQUANF_CRASH_POINT="name:3"    at the third,
// where dying is SIGKILL to itself: no destructors, no flushing, as from outside.
// Thread safety: may be hit from any thread.
#ifndef UNIQUANF_COMMON_BASE_CRASH_POINT_H_
#define UNIQUANF_COMMON_BASE_CRASH_POINT_H_

namespace uniquanf::internal {

// Whether the environment armed any point; read once, when the program starts.
extern const bool kCrashPointsArmed;
void HitCrashPoint(const char* name);

}  // namespace uniquanf::internal

#define UQ_CRASH_POINT(name)                       \
  do {                                             \
    if (::uniquanf::internal::kCrashPointsArmed) { \
      ::uniquanf::internal::HitCrashPoint(name);   \
    }                                              \
  } while (false)

#endif  // UNIQUANF_COMMON_BASE_CRASH_POINT_H_
