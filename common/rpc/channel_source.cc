#include "common/rpc/channel_source.h"

#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status.h"

namespace uniquanf {

// Shared with the thread that looks names up, which may be in the midst of that for long.
struct ChannelSource::State {
  // Makes the channel for what is known now.
  void Connect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    channel = ConnectTo(target, options.channel, credentials);
  }
  void Note(NoteLevel level, const std::string& text) const {
    if (options.note != nullptr) options.note(level, text);
  }
  // The looking thread. Its own: what each server's name stood for last.
  void Run();
  void TakeCertificates(const TlsContents& contents) ABSL_LOCKS_EXCLUDED(mutex);
  // What to note, empty: nothing has changed.
  std::string TakeTarget(const StaticTarget& found) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  ChannelSourceOptions options;
  std::string name;               // the target as it was given
  std::vector<HostPort> servers;  // to look up

  absl::Mutex mutex;
  std::shared_ptr<grpc::ChannelCredentials> credentials ABSL_GUARDED_BY(mutex);
  ChannelTarget target ABSL_GUARDED_BY(mutex);
  std::shared_ptr<grpc::Channel> channel ABSL_GUARDED_BY(mutex);
  bool several ABSL_GUARDED_BY(mutex) = false;
  bool looked_up ABSL_GUARDED_BY(mutex) = true;  // the first lookup has ended, or there is none
  bool look_again ABSL_GUARDED_BY(mutex) = false;
  bool looking ABSL_GUARDED_BY(mutex) = false;
  bool stop ABSL_GUARDED_BY(mutex) = false;
};

std::unique_ptr<ChannelSource> ChannelSource::Of(std::shared_ptr<grpc::Channel> channel) {
  auto state = std::make_shared<State>();
  {
    absl::MutexLock lock(&state->mutex);
    state->channel = std::move(channel);
  }
  return std::unique_ptr<ChannelSource>(new ChannelSource(std::move(state)));
}

absl::StatusOr<std::unique_ptr<ChannelSource>> ChannelSource::Make(
    absl::string_view target, const ChannelSourceOptions& options) {
  const ClientTlsOptions& tls = options.channel.tls;
  const auto state = std::make_shared<State>();
  state->options = options;
  state->name = std::string(target);
  UQ_ASSIGN_OR_RETURN(state->servers, ParseServers(target));
  if (state->servers.size() == 1 && UsesHttpProxy(state->servers[0].host)) state->servers.clear();
  std::unique_ptr<ChannelSource> source(new ChannelSource(state));
  TlsContents contents;
  if (!tls.files().empty()) {
    TlsWatchOptions watch;
    watch.period = options.tls_period;
    watch.note = options.note;
    watch.on_new = [state](const TlsContents& fresh) { state->TakeCertificates(fresh); };
    UQ_ASSIGN_OR_RETURN(source->files_, TlsWatch::Start(tls.files(), std::move(watch)));
    contents = *source->files_->contents();
  }
  UQ_ASSIGN_OR_RETURN(const auto credentials, MakeChannelCredentials(tls, contents));
  UQ_ASSIGN_OR_RETURN(ChannelTarget first,
                      FirstTarget(target, state->servers, tls, options.lookup));
  {
    absl::MutexLock lock(&state->mutex);
    // The watch may have found newer files by now.
    if (state->credentials == nullptr) state->credentials = credentials;
    state->several = first.several;
    state->target = std::move(first);
    state->looked_up = state->servers.size() != 1;
    state->Connect();
  }
  if (!state->servers.empty()) source->thread_ = std::thread([state] { state->Run(); });
  return source;
}

ChannelSource::~ChannelSource() {
  files_.reset();
  bool looking = false;
  {
    absl::MutexLock lock(&state_->mutex);
    state_->stop = true;
    looking = state_->looking;
  }
  if (!thread_.joinable()) return;
  // The system's lookup cannot be interrupted, and the end of a program does not wait for it.
  if (looking) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

std::shared_ptr<grpc::Channel> ChannelSource::Get(absl::Duration max_wait) {
  absl::MutexLock lock(&state_->mutex);
  state_->mutex.AwaitWithTimeout(absl::Condition(&state_->looked_up), max_wait);
  return state_->channel;
}

void ChannelSource::Refresh() {
  if (files_ != nullptr) files_->ReloadNow();
  absl::MutexLock lock(&state_->mutex);
  state_->look_again = true;
}

bool ChannelSource::several() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->several;
}

void ChannelSource::State::TakeCertificates(const TlsContents& contents) {
  const auto fresh = MakeChannelCredentials(options.channel.tls, contents);
  absl::MutexLock lock(&mutex);
  credentials = *fresh;  // the options were right at the start
  if (channel != nullptr) Connect();
}

std::string ChannelSource::State::TakeTarget(const StaticTarget& found) {
  if (found.target == target.target && found.several == target.several) return "";
  const bool first = !looked_up;
  // Other addresses than before: servers come and go.
  several = several || found.several || !first;
  target = {found.target, found.several, servers.size() == 1 ? servers[0] : HostPort()};
  Connect();
  return absl::StrCat(name, first ? " is at " : " is now at ", found.target);
}

void ChannelSource::State::Run() {
  std::vector<std::vector<ServerAddress>> addresses(servers.size());
  bool failure_told = false;
  while (true) {
    {
      absl::MutexLock lock(&mutex);
      if (stop) return;
      looking = true;
      look_again = false;
    }
    bool all_known = true;
    for (size_t i = 0; i < servers.size(); ++i) {
      std::vector<ServerAddress> found = options.lookup(servers[i]);
      all_known = all_known && !found.empty();
      // While a name is not answered for, the addresses that it had are the best guess.
      if (!found.empty()) addresses[i] = std::move(found);
    }
    const std::optional<StaticTarget> found = MakeStaticTarget(addresses);
    std::string change;
    {
      absl::MutexLock lock(&mutex);
      looking = false;
      if (stop) return;
      if (found.has_value()) change = TakeTarget(*found);
      looked_up = true;
    }
    if (!change.empty()) Note(NoteLevel::kInfo, change);
    if (!all_known && !failure_told) {
      Note(NoteLevel::kWarning,
           absl::StrCat("the name of a server is not known now: ", name, "; it is tried again"));
    }
    failure_told = !all_known;
    absl::MutexLock lock(&mutex);
    if (mutex.AwaitWithTimeout(absl::Condition(&stop), options.min_lookup_gap)) return;
    const auto woken = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return stop || look_again; };
    mutex.AwaitWithTimeout(absl::Condition(&woken), options.lookup_period);
  }
}

}  // namespace uniquanf
