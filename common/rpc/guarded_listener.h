// The gRPC port, accepted here and handed to gRPC. gRPC 1.51 stops listening for good when accept
// fails once for want of file descriptors (CVE-2023-4785), and no Debian suite packages a version
// that does not; so connections are bounded below the process's limit, by peer and altogether, and
// a failing accept is tried again.
//
// Also opens connections to itself, through the same socket and the same gRPC server, for a health
// check that notices when either no longer works.
//
// Thread safety: thread-safe, except that Bind, Start, Stop and the destructor are called in order.
// Ownership: a connection handed over is gRPC's. Errors: those of ListenOn.
#ifndef UNIQUANF_COMMON_RPC_GUARDED_LISTENER_H_
#define UNIQUANF_COMMON_RPC_GUARDED_LISTENER_H_

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/listen_socket.h"

namespace uniquanf {

struct ConnectionLimits {
  int max_connections = 1024;
  int max_per_peer = 512;  // of one address
};

// Bounds for a process that may have `max_files` files open and needs some of them for itself.
// 0 takes what the process can bear; half of all for one peer.
ConnectionLimits ResolveConnectionLimits(int max_connections, int max_per_peer, int64_t max_files);

struct ConnectionCounts {
  int64_t num_open = 0;  // as of about a second ago
  int64_t num_accepted = 0;
  int64_t num_refused_total = 0;  // by max_connections
  int64_t num_refused_peer = 0;   // by max_per_peer
  int64_t num_failed_accepts = 0;
};

class GuardedListener {
 public:
  using Acceptor = grpc::experimental::ExternalConnectionAcceptor;

  static absl::StatusOr<std::unique_ptr<GuardedListener>> Bind(const std::string& listen,
                                                               const ConnectionLimits& limits);
  ~GuardedListener();

  int port() const { return listening_.port; }
  // Registers with the builder what will take the connections: `credentials` for all of them but
  // those to itself, which need none.
  void AddTo(grpc::ServerBuilder* builder, std::shared_ptr<grpc::ServerCredentials> credentials);
  // REQUIRES: AddTo, and the gRPC server runs.
  void Start();
  // No more connections: closes the port. Before the gRPC server's shutdown, and when nobody is in
  // ConnectToSelf any more. Idempotent.
  void Stop();

  // A connection to this port as anybody else would make it, that is exempt from the bounds and
  // from TLS. Errors: kUnavailable (LISTENER_DEAD).
  absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectToSelf();

  ConnectionCounts counts() const;

 private:
  struct Connection {
    ino_t inode;  // tells this socket from a later file of the same number
    std::string peer;
  };

  GuardedListener(ListenSockets listening, const ConnectionLimits& limits);
  void Run();
  void AcceptAll(int listener);
  void Take(UniqueFd fd, const sockaddr_storage& peer);
  bool Admit(int fd, ino_t inode, const std::string& peer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::map<int, Connection>::iterator Forget(std::map<int, Connection>::iterator it)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetClosed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ListenSockets listening_;
  const ConnectionLimits limits_;
  const UniqueFd wake_;
  std::unique_ptr<Acceptor> acceptor_, self_acceptor_;
  bool out_of_files_ = false;  // the accepting thread's own

  mutable absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<int, Connection> open_ ABSL_GUARDED_BY(mutex_);  // by file descriptor
  std::map<std::string, int> open_of_peer_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> self_addresses_ ABSL_GUARDED_BY(mutex_);  // of connections to itself
  absl::Duration swept_at_ ABSL_GUARDED_BY(mutex_);
  ConnectionCounts counts_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_GUARDED_LISTENER_H_
