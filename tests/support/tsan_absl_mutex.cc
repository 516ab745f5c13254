// Thread sanitizer builds only: tells the sanitizer about absl::Mutex. Debian's abseil is not
// instrumented, so every access guarded by one would be reported as a race. These definitions take
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
    std::fprintf(stderr, "tsan_absl_mutex.cc: the abseil in use has no %s\n", symbol.c_str());
    std::abort();
  }
  return function;
}

template <typename Result, typename... Arguments>
Result Call(void* function, Arguments... arguments) {
  return reinterpret_cast<Result (*)(Arguments...)>(function)(arguments...);
}

// Marks a wait that lets go of `mutex` and holds it again at its end.
template <typename Wait>
auto Waiting(absl::Mutex* mutex, const Wait& wait) {
  __tsan_mutex_pre_unlock(mutex, 0);
  __tsan_mutex_post_unlock(mutex, 0);
  __tsan_mutex_pre_lock(mutex, 0);
  if constexpr (std::is_void_v<decltype(wait())>) {
    wait();
    __tsan_mutex_post_lock(mutex, 0, 0);
  } else {
    const auto result = wait();
    __tsan_mutex_post_lock(mutex, 0, 0);
    return result;
  }
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

Mutex::~Mutex() {
  static void* const function = Library("_ZN%s5MutexD1Ev");
  __tsan_mutex_destroy(this, 0);
  Call<void>(function, this);
}

void Mutex::Lock() {
  static void* const function = Library("_ZN%s5Mutex4LockEv");
  __tsan_mutex_pre_lock(this, 0);
  Call<void>(function, this);
  __tsan_mutex_post_lock(this, 0, 0);
}

void Mutex::Unlock() {
  static void* const function = Library("_ZN%s5Mutex6UnlockEv");
  __tsan_mutex_pre_unlock(this, 0);
  Call<void>(function, this);
  __tsan_mutex_post_unlock(this, 0);
}

bool Mutex::TryLock() {
  static void* const function = Library("_ZN%s5Mutex7TryLockEv");
  __tsan_mutex_pre_lock(this, __tsan_mutex_try_lock);
  const bool locked = Call<bool>(function, this);
  __tsan_mutex_post_lock(this, __tsan_mutex_try_lock | (locked ? 0 : __tsan_mutex_try_lock_failed),
                         0);
  return locked;
}

void Mutex::ReaderLock() {
  static void* const function = Library("_ZN%s5Mutex10ReaderLockEv");
  __tsan_mutex_pre_lock(this, __tsan_mutex_read_lock);
  Call<void>(function, this);
  __tsan_mutex_post_lock(this, __tsan_mutex_read_lock, 0);
}

void Mutex::ReaderUnlock() {
  static void* const function = Library("_ZN%s5Mutex12ReaderUnlockEv");
  __tsan_mutex_pre_unlock(this, __tsan_mutex_read_lock);
  Call<void>(function, this);
  __tsan_mutex_post_unlock(this, __tsan_mutex_read_lock);
}

void Mutex::LockWhen(const Condition& condition) {
  static void* const function = Library("_ZN%s5Mutex8LockWhenERKNS0_9ConditionE");
  __tsan_mutex_pre_lock(this, 0);
  Call<void>(function, this, &condition);
  __tsan_mutex_post_lock(this, 0, 0);
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
