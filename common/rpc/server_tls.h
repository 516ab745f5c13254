// The server's side of TLS, whose certificate, key and client authorities are renewed while it
// runs.
//
// Thread safety: thread-safe. Errors: kInvalidArgument (INVALID_TLS_OPTIONS) names the option or
// the file.
#ifndef UNIQUANF_COMMON_RPC_SERVER_TLS_H_
#define UNIQUANF_COMMON_RPC_SERVER_TLS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/tls_files.h"

namespace uniquanf {

struct ServerTlsOptions {
  // Certificate and key together turn TLS on.
  std::string certificate_file;
  std::string key_file;
  // Clients must then prove themselves with a certificate of these authorities.
  std::string client_ca_file;
  // One that shows no certificate is let in all the same: it may prove itself by a token.
  bool client_certificate_optional = false;
  bool enabled() const { return !certificate_file.empty(); }
};

class ServerTls {
 public:
  static absl::StatusOr<std::unique_ptr<ServerTls>> Open(const ServerTlsOptions& options,
                                                         const TlsWatchOptions& watch = {});

  // For a server's builder; each handshake takes what the files held at the last look. Connections
  // that are there go on. Without TLS: insecure ones. REQUIRES: this object outlives the server.
  const std::shared_ptr<grpc::ServerCredentials>& credentials() const { return credentials_; }
  // Null without TLS.
  TlsWatch* files() const { return files_.get(); }

 private:
  ServerTls() = default;

  std::unique_ptr<TlsWatch> files_;
  std::shared_ptr<grpc::ServerCredentials> credentials_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_SERVER_TLS_H_
