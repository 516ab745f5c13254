#include "tests/fault/appearance_counter.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <utility>

namespace uniquanf {

AppearanceCounter::AppearanceCounter(const std::string& dir, std::string name)
    : name_(std::move(name)), fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  inotify_add_watch(fd_, dir.c_str(), IN_CREATE | IN_MOVED_TO);
}

AppearanceCounter::~AppearanceCounter() { close(fd_); }

int AppearanceCounter::Count() {
  alignas(inotify_event) char buffer[16 << 10];
  for (ssize_t size; (size = read(fd_, buffer, sizeof(buffer))) > 0;) {
    for (char* at = buffer; at < buffer + size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(at);
      if (event->len > 0 && name_ == event->name) ++count_;
      at += sizeof(inotify_event) + event->len;
    }
  }
  return count_;
}

}  // namespace uniquanf
