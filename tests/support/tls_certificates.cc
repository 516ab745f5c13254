#include "tests/support/tls_certificates.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <cstdio>

#include "common/base/check.h"

namespace uniquanf {
namespace {

constexpr int64_t kHour = 3600, kDay = 24 * kHour;

void AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  UQ_CHECK(extension != nullptr);
  UQ_CHECK(X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

// Unsigned; valid from an hour ago, so that clocks may differ a little.
X509* NewCertificate(const std::string& common_name, EVP_PKEY* key, int64_t not_after_s) {
  X509* const certificate = X509_new();
  UQ_CHECK(certificate != nullptr);
  X509_set_version(certificate, X509_VERSION_3);
  BIGNUM* const serial = BN_new();
  UQ_CHECK(BN_rand(serial, 64, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1);
  BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(certificate));
  BN_free(serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -kHour);
  X509_gmtime_adj(X509_getm_notAfter(certificate), not_after_s);
  UQ_CHECK(X509_set_pubkey(certificate, key) == 1);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1,
                             0);
  return certificate;
}

void WriteCertificate(const std::string& path, X509* certificate) {
  FILE* const file = std::fopen(path.c_str(), "wb");
  UQ_CHECK(file != nullptr);
  UQ_CHECK(PEM_write_X509(file, certificate) == 1);
  UQ_CHECK(std::fclose(file) == 0);
}

}  // namespace

TlsAuthority::TlsAuthority(const std::string& directory, const std::string& name)
    : directory_(directory),
      name_(name),
      certificate_file_(directory + "/" + name + ".crt"),
      key_(EVP_EC_gen("P-256"), &EVP_PKEY_free),
      certificate_(NewCertificate(name, key_.get(), kDay), &X509_free) {
  X509_set_issuer_name(certificate_.get(), X509_get_subject_name(certificate_.get()));
  AddExtension(certificate_.get(), certificate_.get(), NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(certificate_.get(), certificate_.get(), NID_key_usage, "critical,keyCertSign");
  UQ_CHECK(X509_sign(certificate_.get(), key_.get(), EVP_sha256()) > 0);
  WriteCertificate(certificate_file_, certificate_.get());
}

TlsFiles TlsAuthority::Issue(const std::string& name) const { return Issue(name, kDay); }

TlsFiles TlsAuthority::IssueExpired(const std::string& name) const { return Issue(name, -60); }

TlsFiles TlsAuthority::IssueFor(const std::string& name, const std::string& uri) const {
  return Issue(name, kDay, ",URI:" + uri);
}

TlsFiles TlsAuthority::Issue(const std::string& name, int64_t not_after_s,
                             const std::string& more_names) const {
  const Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  UQ_CHECK(key != nullptr);
  const Certificate certificate(NewCertificate(name, key.get(), not_after_s), &X509_free);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate_.get()));
  AddExtension(certificate.get(), certificate_.get(), NID_subject_alt_name,
               ("DNS:localhost,IP:127.0.0.1" + more_names).c_str());
  UQ_CHECK(X509_sign(certificate.get(), key_.get(), EVP_sha256()) > 0);

  const std::string stem = directory_ + "/" + name_ + "-" + name;
  const TlsFiles files = {stem + ".crt", stem + ".key"};
  WriteCertificate(files.certificate, certificate.get());
  FILE* const file = std::fopen(files.key.c_str(), "wb");
  UQ_CHECK(file != nullptr);
  UQ_CHECK(PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1);
  UQ_CHECK(std::fclose(file) == 0);
  return files;
}

}  // namespace uniquanf
