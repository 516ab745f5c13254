// The channel to a server whose addresses and whose own certificate change while the program runs.
//
// A name is looked up again every now and then and after every call that fails: in a cluster the
// addresses behind it are those of the servers that there are at the moment. Where it has several,
// calls go to the one whose health service says SERVING, as with a list of servers. Files of TLS
// are read again, too. Whenever something has changed there is a fresh channel; calls that are
// under way keep the old one. gRPC shares connections between channels, so a fresh one costs
// little.
//
// Thread safety: thread-safe. Lifetime: the channels outlive it.
#ifndef UNIQUANF_COMMON_RPC_CHANNEL_SOURCE_H_
#define UNIQUANF_COMMON_RPC_CHANNEL_SOURCE_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/rpc/channel.h"
#include "common/rpc/notes.h"
#include "common/rpc/server_names.h"
#include "common/rpc/tls_files.h"

namespace uniquanf {

struct ChannelSourceOptions {
  ChannelOptions channel;
  ServerLookup lookup = LookUpServer;  // called on a thread of its own
  absl::Duration lookup_period = absl::Seconds(30);
  absl::Duration min_lookup_gap = absl::Milliseconds(500);
  absl::Duration tls_period = absl::Seconds(10);
  NoteSink note;
};

class ChannelSource {
 public:
  // `target` as for MakeChannel, with its errors.
  static absl::StatusOr<std::unique_ptr<ChannelSource>> Make(absl::string_view target,
                                                             const ChannelSourceOptions& options);
  // Always this one.
  static std::unique_ptr<ChannelSource> Of(std::shared_ptr<grpc::Channel> channel);
  ~ChannelSource();

  // For the next call; never null. Waits for the first lookup of a name, but not longer than
  // `max_wait`; until then the channel is one for which gRPC looks the name up.
  std::shared_ptr<grpc::Channel> Get(absl::Duration max_wait);
  // After a call that did not reach a server, or not the active one: looks again, soon, and in the
  // background.
  void Refresh();
  // Whether there is, or was, more than one server: another one may be about to take over.
  bool several() const;

 private:
  struct State;
  explicit ChannelSource(std::shared_ptr<State> state) : state_(std::move(state)) {}

  const std::shared_ptr<State> state_;
  std::thread thread_;               // looks names up; not there for a target that has none
  std::unique_ptr<TlsWatch> files_;  // null: no files
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_CHANNEL_SOURCE_H_
