// The server as one object: store, runtime, services and gRPC server, started and stopped in order.
// main.cc gives it flags; tests make it in their own process.
//
// Thread safety: Start, Shutdown and the accessors from one thread; Shutdown is idempotent.
#ifndef UNIQUANF_SERVER_SERVICE_SERVER_PROCESS_H_
#define UNIQUANF_SERVER_SERVICE_SERVER_PROCESS_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/rpc/guarded_listener.h"
#include "common/rpc/server_tls.h"
#include "server/access/relayed_callers.h"
#include "server/http/http_counts.h"
#include "server/runtime/runtime.h"
#include "server/service/listener_watch.h"
#include "server/service/services.h"
#include "server/store/job_store.h"

namespace uniquanf::server {

class HttpService;

struct ServerProcessOptions {
  // host:port; port 0 takes a free one. Empty: no socket, for tests with in-process channels.
  std::string listen = "127.0.0.1:50051";
  std::string object_root;  // URI
  std::string data_dir;     // where the state lies, which no job may name; "": nowhere
  StoreOptions store;       // how it is opened
  ServerTlsOptions tls;
  // A port of their own for workers, who then are not served on the other one; like `listen`.
  // Empty: they share it.
  std::string worker_listen;
  ServerTlsOptions worker_tls;
  // Where JobService and AdminService are served over HTTP as well; like `listen`, with the same
  // certificates. Empty: nowhere.
  std::string http_listen;
  int http_max_streams = 50;
  TlsWatchOptions tls_watch;
  // Who may call; borrowed. Null: everybody.
  AccessControl* access = nullptr;
  AuditLog* audit = nullptr;  // borrowed; null: none
  bool audit_required = false;
  std::string credentials_dir;  // ServiceContext
  bool reflection = false;
  ConnectionLimits connections;
  ListenerWatchOptions listener_watch;
  RuntimeOptions runtime;
  // RetryJob looks into the object store for the results that the job has.
  bool check_results = false;
  // Whether CreateJob looks at what a job names (preflight.h).
  bool check_submissions = false;
  absl::Duration shutdown_timeout = absl::Seconds(10);
};

class ServerProcess {
 public:
  ServerProcess(ServerProcessOptions options, std::unique_ptr<JobStore> store, const Clock* clock,
                IdGenerator* ids, RuntimeObserver* runtime_observer, RpcObserver* rpc_observer);
  ~ServerProcess();

  // OK also when this server stands by for another: it answers NOT_SERVING and UNAVAILABLE until it
  // is the active one. Errors: those of JobStore::Open; kUnavailable (LISTEN_FAILED) when the
  // address cannot be bound. The port answers once the state has been read.
  absl::Status Start();
  // NOT_SERVING → no new leases, held calls answered → streams ended → gRPC down (calls still open
  // at the deadline are cancelled) → writer and store closed.
  void Shutdown();

  int port() const { return main_.port(); }
  int worker_port() const { return workers_.port(); }
  // OK, or why a gRPC port does not answer. Also before Start has returned, from any thread.
  absl::Status listener_health() const ABSL_LOCKS_EXCLUDED(health_mutex_);
  ConnectionCounts connections() const ABSL_LOCKS_EXCLUDED(health_mutex_);
  // Reads the files of TLS now; without them nothing.
  void ReloadTls();
  // When the certificate in use expires; infinite without one. From any thread after Start.
  absl::Time tls_not_after() const ABSL_LOCKS_EXCLUDED(health_mutex_);
  int http_port() const ABSL_LOCKS_EXCLUDED(health_mutex_);
  // Of the HTTP address, from any thread after Start.
  HttpCounts http_connections() const ABSL_LOCKS_EXCLUDED(health_mutex_);
  int num_http_streams() const ABSL_LOCKS_EXCLUDED(health_mutex_);
  Runtime* runtime() { return runtime_.get(); }
  std::shared_ptr<grpc::Channel> InProcessChannel();

 private:
  // One port and what serves it.
  struct Port {
    std::unique_ptr<GuardedListener> listener;  // null without a socket
    std::unique_ptr<ServerTls> tls;             // outlives the server
    std::unique_ptr<grpc::Server> server;       // null: there is no such port
    std::unique_ptr<ListenerWatch> watch;       // guarded by health_mutex_
    int port() const { return listener == nullptr ? 0 : listener->port(); }
  };
  // Without a socket where `listen` is empty. `flag` is its name in errors.
  absl::Status Open(Port* port, const std::string& listen, const std::string& flag,
                    const std::vector<grpc::Service*>& services);
  absl::Status OpenHttp();
  void EndCalls(grpc::Server* server);
  void SetHealth() ABSL_LOCKS_EXCLUDED(health_mutex_);

  ServerProcessOptions options_;
  const std::unique_ptr<JobStore> store_;
  const Clock* const clock_;
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<StoredResults> stored_results_;
  std::unique_ptr<Preflight> preflight_;
  std::unique_ptr<OutcomeProof> outcome_proof_;
  ServiceContext context_;
  std::unique_ptr<JobServiceImpl> job_service_;
  std::unique_ptr<WorkerServiceImpl> worker_service_;
  std::unique_ptr<AdminServiceImpl> admin_service_;
  Port main_, workers_;
  RelayedCallers relayed_callers_;
  std::unique_ptr<HttpService> http_;  // null: there is none; guarded by health_mutex_
  mutable absl::Mutex health_mutex_;
  bool active_ ABSL_GUARDED_BY(health_mutex_) = false;
  bool listening_ ABSL_GUARDED_BY(health_mutex_) = false;
  bool shut_down_ = false;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVER_PROCESS_H_
