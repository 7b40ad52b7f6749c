# shellcheck shell=bash
# Adds a SASL_SSL listener (PLAIN and SCRAM over TLS) to the broker of services/kafka.sh. Source it before the first start of a
# KAFKA_HOME, because SCRAM users are written when the data directory is formatted:
#   services/kafka.sh install; . services/kafka/sasl-tls.sh; services/kafka.sh start
# SASL_SSL is at KAFKA_PORT + 2. Users: alice / alice-secret (PLAIN, may do everything), bob / bob-secret (SCRAM, may do nothing until
# an ACL says so). The CA is $KAFKA_HOME/tls/ca.pem. The keys are throw-away; the PLAINTEXT port stays open for the tests themselves.
_tls=${KAFKA_HOME:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.kafka}/tls
mkdir -p "$_tls"
if [ ! -e "$_tls/broker.pem" ]; then
  (
    set -e
    cd "$_tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ringfence-test-ca -keyout ca.key -out ca.pem
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout broker.key -out broker.csr
    openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out broker.crt \
      -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth')
    # Kafka reads PEM: the PKCS#8 key first, then the chain
    cat broker.key broker.crt ca.pem >broker.pem
  ) 2>"$_tls/openssl.log" || echo "sasl-tls.sh: openssl failed, see $_tls/openssl.log" >&2
fi
cat >"$_tls/extra.properties" <<PROPERTIES
listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CPORT@,SASL_SSL://127.0.0.1:@SSLPORT@
advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,SASL_SSL://localhost:@SSLPORT@
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="alice-secret";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$_tls/broker.pem
# ANONYMOUS is the plaintext side: the broker itself and the administration done by tests
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:alice
PROPERTIES
export KAFKA_EXTRA=$_tls/extra.properties
export KAFKA_FORMAT_ARGS="--add-scram SCRAM-SHA-256=[name=bob,password=bob-secret] --add-scram SCRAM-SHA-512=[name=bob,password=bob-secret]"
unset _tls
