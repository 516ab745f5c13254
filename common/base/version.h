// The version of all programs of this tree. It is written into artifacts, so equal bytes mean equal
// versions.
#ifndef UNIQUANF_COMMON_BASE_VERSION_H_
#define UNIQUANF_COMMON_BASE_VERSION_H_

namespace uniquanf {

inline constexpr char kSoftwareVersion[] = "0.1.0";
// Of WorkerService; a worker of another one is refused.
inline constexpr int kProtocolVersion = 2;

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_VERSION_H_
