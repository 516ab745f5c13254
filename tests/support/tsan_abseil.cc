// Thread sanitizer builds only: tells the sanitizer about absl::Mutex, Notification and
// Status. Debian's abseil is not instrumented, so every access guarded by them would be reported as
// a race. These definitions take
// the place of the library's for the program and for the shared libraries it loads (gRPC uses
// absl::Mutex too); each marks the operation and calls the library's own.
//
// Between pre and post the sanitizer ignores this thread: absl evaluates waiters' conditions in
// whichever thread unlocks, which is no access of that thread's.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/base/config.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace {

#define UNIQUANF_STRING_OF(x) #x
#define UNIQUANF_EXPANDED_STRING_OF(x) UNIQUANF_STRING_OF(x)
constexpr char kNamespace[] = UNIQUANF_EXPANDED_STRING_OF(ABSL_OPTION_INLINE_NAMESPACE_NAME);

// The library's function whose mangled name within namespace absl is `name`; %s there stands for
// the mangled inline namespace.
void* Library(const char* name) {
  const std::string scope = "4absl" + std::to_string(std::strlen(kNamespace)) + kNamespace;
  std::string symbol = name;
  symbol.replace(symbol.find("%s"), 2, scope);
  void* const function = dlsym(RTLD_NEXT, symbol.c_str());
  if (function == nullptr) {
    std::fprintf(stderr, "tsan_abseil.cc: the abseil in use has no %s\n", symbol.c_str());
    std::abort();
  }
  return function;
}

template <typename Result, typename... Arguments>
Result Call(void* function, Arguments... arguments) {
  return reinterpret_cast<Result (*)(Arguments...)>(function)(arguments...);
}

// The library calls some of these functions from others (AwaitWithTimeout from AwaitWithDeadline);
// only the outermost call of a thread is marked.
thread_local int depth = 0;
class Marked {
 public:
  Marked() { ++depth; }
  ~Marked() { --depth; }
};

void PreLock(absl::Mutex* mutex, unsigned flags = 0) {
  if (depth == 1) __tsan_mutex_pre_lock(mutex, flags);
}
void PostLock(absl::Mutex* mutex, unsigned flags = 0) {
  if (depth == 1) __tsan_mutex_post_lock(mutex, flags, 0);
}
void PreUnlock(absl::Mutex* mutex, unsigned flags = 0) {
  if (depth == 1) __tsan_mutex_pre_unlock(mutex, flags);
}
void PostUnlock(absl::Mutex* mutex, unsigned flags = 0) {
  if (depth == 1) __tsan_mutex_post_unlock(mutex, flags);
}

// Marks a wait that lets go of `mutex` and holds it again at its end.
template <typename Wait>
auto Waiting(absl::Mutex* mutex, const Wait& wait) {
  const Marked marked;
  PreUnlock(mutex);
  PostUnlock(mutex);
  PreLock(mutex);
  if constexpr (std::is_void_v<decltype(wait())>) {
    wait();
    PostLock(mutex);
  } else {
    const auto result = wait();
    PostLock(mutex);
    return result;
  }
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

Mutex::~Mutex() {
  static void* const function = Library("_ZN%s5MutexD1Ev");
  const Marked marked;
  __tsan_mutex_destroy(this, 0);
  Call<void>(function, this);
}

void Mutex::Lock() {
  static void* const function = Library("_ZN%s5Mutex4LockEv");
  const Marked marked;
  PreLock(this);
  Call<void>(function, this);
  PostLock(this);
}

void Mutex::Unlock() {
  static void* const function = Library("_ZN%s5Mutex6UnlockEv");
  const Marked marked;
  PreUnlock(this);
  Call<void>(function, this);
  PostUnlock(this);
}

bool Mutex::TryLock() {
  static void* const function = Library("_ZN%s5Mutex7TryLockEv");
  const Marked marked;
  PreLock(this, __tsan_mutex_try_lock);
  const bool locked = Call<bool>(function, this);
  PostLock(this, __tsan_mutex_try_lock | (locked ? 0 : __tsan_mutex_try_lock_failed));
  return locked;
}

void Mutex::ReaderLock() {
  static void* const function = Library("_ZN%s5Mutex10ReaderLockEv");
  const Marked marked;
  PreLock(this, __tsan_mutex_read_lock);
  Call<void>(function, this);
  PostLock(this, __tsan_mutex_read_lock);
}

void Mutex::ReaderUnlock() {
  static void* const function = Library("_ZN%s5Mutex12ReaderUnlockEv");
  const Marked marked;
  PreUnlock(this, __tsan_mutex_read_lock);
  Call<void>(function, this);
  PostUnlock(this, __tsan_mutex_read_lock);
}

void Mutex::LockWhen(const Condition& condition) {
  static void* const function = Library("_ZN%s5Mutex8LockWhenERKNS0_9ConditionE");
  const Marked marked;
  PreLock(this);
  Call<void>(function, this, &condition);
  PostLock(this);
}

void Mutex::Await(const Condition& condition) {
  static void* const function = Library("_ZN%s5Mutex5AwaitERKNS0_9ConditionE");
  Waiting(this, [&] { Call<void>(function, this, &condition); });
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static void* const function =
      Library("_ZN%s5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  return Waiting(this, [&] { return Call<bool>(function, this, &condition, timeout); });
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static void* const function =
      Library("_ZN%s5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  return Waiting(this, [&] { return Call<bool>(function, this, &condition, deadline); });
}

void CondVar::Wait(Mutex* mutex) {
  static void* const function = Library("_ZN%s7CondVar4WaitEPNS0_5MutexE");
  Waiting(mutex, [&] { Call<void>(function, this, mutex); });
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static void* const function =
      Library("_ZN%s7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  return Waiting(mutex, [&] { return Call<bool>(function, this, mutex, timeout); });
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static void* const function = Library("_ZN%s7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  return Waiting(mutex, [&] { return Call<bool>(function, this, mutex, deadline); });
}

// The count of references is an atomic of the library's; the last to let go frees what others read.
void Status::UnrefNonInlined(uintptr_t representation) {
  static void* const function = Library("_ZN%s6Status15UnrefNonInlinedEm");
  void* const shared = reinterpret_cast<void*>(representation);
  __tsan_release(shared);
  __tsan_acquire(shared);
  Call<void>(function, representation);
}

// Its fast path is an atomic of the library's.
void Notification::Notify() {
  static void* const function = Library("_ZN%s12Notification6NotifyEv");
  __tsan_release(this);
  Call<void>(function, this);
}

void Notification::WaitForNotification() const {
  static void* const function = Library("_ZNK%s12Notification19WaitForNotificationEv");
  Call<void>(function, this);
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  static void* const function =
      Library("_ZNK%s12Notification30WaitForNotificationWithTimeoutENS0_8DurationE");
  const bool notified = Call<bool>(function, this, timeout);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl
