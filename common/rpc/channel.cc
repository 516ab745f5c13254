#include "common/rpc/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <netdb.h>
#include <sys/socket.h>

#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/read_file.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_TLS_OPTIONS";

absl::StatusOr<std::string> ReadPem(absl::string_view what, const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path);
  if (!text.ok()) {
    return InvalidInput(kReason, absl::StrCat("cannot read the ", what, " file \"", path,
                                              "\": ", text.status().message()));
  }
  if (text->find("-----BEGIN ") == std::string::npos) {
    return InvalidInput(kReason, absl::StrCat("the ", what, " file \"", path,
                                              "\" is not PEM: it has no \"-----BEGIN\" line"));
  }
  return text;
}

absl::Status CheckPair(const std::string& certificate_file, const std::string& key_file) {
  if (certificate_file.empty() == key_file.empty()) return absl::OkStatus();
  return InvalidInput(kReason,
                      absl::StrCat("a TLS certificate and its key are given together; the ",
                                   key_file.empty() ? "key" : "certificate", " file is missing"));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const ClientTlsOptions& options) {
  UQ_RETURN_IF_ERROR(CheckPair(options.certificate_file, options.key_file));
  if (!options.enabled && options.ca_file.empty()) {
    if (!options.certificate_file.empty() || !options.server_name.empty()) {
      return InvalidInput(kReason,
                          "a client certificate or server name needs TLS: give the CA file");
    }
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions ssl;
  if (!options.ca_file.empty()) {
    UQ_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem("certificate authority", options.ca_file));
  }
  if (!options.certificate_file.empty()) {
    UQ_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadPem("certificate", options.certificate_file));
    UQ_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadPem("key", options.key_file));
  }
  return grpc::SslCredentials(ssl);
}

// The addresses of `host_port`, numeric, of one family (AF_INET or AF_INET6).
std::vector<std::string> Resolve(const std::string& host, const std::string& port, int family) {
  addrinfo hints = {};
  hints.ai_family = family;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  std::vector<std::string> addresses;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &list) != 0) return addresses;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    char name[NI_MAXHOST] = "";
    if (getnameinfo(entry->ai_addr, entry->ai_addrlen, name, sizeof(name), nullptr, 0,
                    NI_NUMERICHOST) == 0) {
      addresses.push_back(absl::StrCat(family == AF_INET6 ? "[" : "", name,
                                       family == AF_INET6 ? "]" : "", ":", port));
    }
  }
  freeaddrinfo(list);
  return addresses;
}

// "a:1,b:2" as gRPC's target of several addresses: "ipv4:10.0.0.1:1,10.0.0.2:2". Hosts that cannot
// be resolved are left out while there are others.
absl::StatusOr<std::string> ResolveList(absl::string_view target) {
  std::vector<std::pair<std::string, std::string>> servers;
  for (const absl::string_view server : absl::StrSplit(target, ',')) {
    const size_t colon = server.rfind(':');
    if (colon == absl::string_view::npos || colon == 0 || colon + 1 == server.size() ||
        absl::StrContains(server, '/')) {
      return InvalidInput("INVALID_TARGET",
                          absl::StrCat("\"", server, "\" in the list of servers \"", target,
                                       "\" is not HOST:PORT"));
    }
    absl::string_view host = server.substr(0, colon);
    if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
    servers.emplace_back(host, server.substr(colon + 1));
  }
  for (const int family : {AF_INET, AF_INET6}) {
    std::vector<std::string> addresses;
    for (const auto& [host, port] : servers) {
      for (std::string& address : Resolve(host, port, family)) {
        addresses.push_back(std::move(address));
      }
    }
    if (!addresses.empty()) {
      return absl::StrCat(family == AF_INET ? "ipv4:" : "ipv6:", absl::StrJoin(addresses, ","));
    }
  }
  return Unavailable("UNKNOWN_HOST",
                     absl::StrCat("no host of the list of servers \"", target, "\" is known"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(absl::string_view target,
                                                           const ChannelOptions& options) {
  UQ_ASSIGN_OR_RETURN(std::shared_ptr<grpc::ChannelCredentials> credentials,
                      MakeChannelCredentials(options.tls));
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_time)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_timeout)));
  // A watch is quiet for long; without this gRPC stops pinging after two pings without data.
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  // Also the time that one connection attempt, TLS handshake included, gets.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.max_reconnect_backoff)));
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetMaxReceiveMessageSize(options.max_reply_bytes);
  if (!options.tls.server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls.server_name);
  }
  if (!absl::StrContains(target, ',')) {
    return grpc::CreateCustomChannel(std::string(target), credentials, arguments);
  }
  if ((options.tls.enabled || !options.tls.ca_file.empty()) && options.tls.server_name.empty()) {
    return InvalidInput("INVALID_TARGET",
                        "a list of servers with TLS needs the name in their certificates: give the "
                        "TLS server name");
  }
  UQ_ASSIGN_OR_RETURN(const std::string addresses, ResolveList(target));
  // Standbys answer NOT_SERVING, and so get no calls.
  arguments.SetServiceConfigJSON(
      R"({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})");
  return grpc::CreateCustomChannel(addresses, credentials, arguments);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerTlsOptions& options) {
  UQ_RETURN_IF_ERROR(CheckPair(options.certificate_file, options.key_file));
  if (options.certificate_file.empty()) {
    if (!options.client_ca_file.empty()) {
      return InvalidInput(kReason, "a client CA needs TLS: give the server's certificate and key");
    }
    return grpc::InsecureServerCredentials();
  }
  grpc::SslServerCredentialsOptions ssl;
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  UQ_ASSIGN_OR_RETURN(pair.cert_chain, ReadPem("certificate", options.certificate_file));
  UQ_ASSIGN_OR_RETURN(pair.private_key, ReadPem("key", options.key_file));
  ssl.pem_key_cert_pairs.push_back(std::move(pair));
  if (!options.client_ca_file.empty()) {
    UQ_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem("client CA", options.client_ca_file));
    ssl.client_certificate_request = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  }
  return grpc::SslServerCredentials(ssl);
}

void ConfigureServerTransport(const ServerTransportOptions& options, grpc::ServerBuilder* builder) {
  const auto set_ms = [builder](const char* name, absl::Duration value) {
    builder->AddChannelArgument(name, static_cast<int>(absl::ToInt64Milliseconds(value)));
  };
  set_ms(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, options.min_ping_interval);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set_ms(GRPC_ARG_MAX_CONNECTION_AGE_MS, options.max_connection_age);
  set_ms(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, options.max_connection_age_grace);
  set_ms(GRPC_ARG_MAX_CONNECTION_IDLE_MS, options.max_connection_idle);
  set_ms(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, options.handshake_timeout);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  builder->SetMaxReceiveMessageSize(options.max_request_bytes);
}

}  // namespace uniquanf
